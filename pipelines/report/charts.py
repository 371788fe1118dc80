"""The layout of charts: positions of lines, bars and ticks in percent of the plot; ``pages/charts.html`` draws them.

Positions are percentages and only lines are stretched, so text keeps its size at any width. Every chart can be read
without a script; the page's script only shows the ``tip`` text under the pointer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

COLOURS: Final = 8
"""Colours of the style sheet (classes ``l0`` to ``l7``); further series start again at the first."""
_MOST_POINTS: Final = 100
"""Points of a line: no screen shows more, and a page with many curves stays small."""


@dataclass(frozen=True, slots=True)
class Series:
    """A line over x, or the band between ``low`` and ``y`` where ``low`` is given; NaN is a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of an axis: its place in percent from the left or the top, and its text."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle in percent of the plot."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """One series ready to be drawn: point lists in thousandths, bars, marks (left, top) and the index of its colour."""

    name: str
    colour: int
    lines: tuple[str, ...] = ()
    areas: tuple[str, ...] = ()
    bars: tuple[Bar, ...] = ()
    marks: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Slice:
    """A vertical strip of the plot and the text shown when the pointer is on it."""

    left: float
    width: float
    tip: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart ready to be drawn; ``summary`` describes it in words."""

    title: str
    summary: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Drawn, ...]
    slices: tuple[Slice, ...]


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    marks: Mapping[str, float] | None = None,
    summary: str = "",
) -> Chart:
    """Lay out lines and bands over a common x axis.

    Args:
        title: short heading.
        series: at least one with a finite value.
        x_label: of the x axis, with its unit.
        y_label: of the y axis, with its unit.
        y_range: of the y axis; that of the data where left out.
        marks: by series name, an x at which its line gets a dot.
        summary: in words; the names of the series where left out.

    Raises:
        ValueError: no finite value.
    """
    series = [_thin(item) for item in series]
    x_range = _range(value for item in series for value in item.x)
    found = _range(value for item in series for value in (*item.y, *(item.low or ())))
    low, high = y_range or _padded(found)
    x_of = _scale(*x_range)
    y_of = _scale(high, low)  # the top of a picture is 0
    drawn = tuple(
        Drawn(
            item.name,
            number % COLOURS,
            lines=tuple(_points(x_of, y_of, piece) for piece in _pieces(item.x, item.y)),
            areas=tuple(_area(x_of, y_of, item)) if item.low is not None else (),
            marks=_mark(x_of, y_of, item, (marks or {}).get(item.name)),
        )
        for number, item in enumerate(series)
    )
    return Chart(
        title,
        summary or f"{title}: {', '.join(item.name for item in series)}",
        x_label,
        y_label,
        tuple(Tick(x_of(value), _text(value)) for value in nice_ticks(*x_range)),
        tuple(Tick(y_of(value), _text(value)) for value in nice_ticks(low, high)),
        drawn,
        tuple(_slices(x_of, series, x_label)),
    )


def bar_chart(
    title: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    notes: Sequence[str] = (),
) -> Chart:
    """Lay out bars side by side: one group per name on the x axis, one bar per series; NaN draws none.

    ``notes`` are shown with the values of each group.

    Raises:
        ValueError: no finite value, or a series that is not as long as the groups.
    """
    if any(len(values) != len(groups) for values in series.values()):
        raise ValueError(f"every series must have {len(groups)} values")
    low, high = y_range or (0.0, _padded(_range(value for values in series.values() for value in values))[1])
    y_of = _scale(high, low)
    width = 100 / len(groups)
    bar = 0.8 * width / len(series)
    drawn = []
    for number, (name, values) in enumerate(series.items()):
        lefts = [width * (group + 0.1) + bar * number for group in range(len(groups))]
        bars = [
            Bar(left, y_of(value), bar, 100 - y_of(value))
            for left, value in zip(lefts, values, strict=True)
            if _is(value)
        ]
        drawn.append(Drawn(name, number % COLOURS, bars=tuple(bars)))
    tips = [
        "\n".join([f"{x_label} {group}", *notes[i : i + 1], *(f"{n}: {_value(v[i])}" for n, v in series.items())])
        for i, group in enumerate(groups)
    ]
    return Chart(
        title,
        f"{title}: {', '.join(series)}",
        x_label,
        y_label,
        tuple(Tick(width * (i + 0.5), group) for i, group in enumerate(groups)),
        tuple(Tick(y_of(value), _text(value)) for value in nice_ticks(low, high)),
        tuple(drawn),
        tuple(Slice(width * i, width, tip) for i, tip in enumerate(tips)),
    )


def nice_ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Return up to ``most`` round numbers (1, 2 or 5 times a power of ten apart) from ``low`` to ``high``."""
    if not high > low:
        return [low]
    rough = (high - low) / (most - 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _is(value: float) -> bool:
    return math.isfinite(value)


def _range(values: Iterator[float]) -> tuple[float, float]:
    finite = [value for value in values if _is(value)]
    if not finite:
        raise ValueError("a chart needs at least one finite value, got none")
    return min(finite), max(finite)


def _padded(found: tuple[float, float]) -> tuple[float, float]:
    low, high = found
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return (0.0 if 0 <= low < 0.5 * high else low - room), high + room


def _scale(low: float, high: float) -> _Scale:
    return _Scale(low, 100 / (high - low) if high != low else 0.0)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Values to percent of the plot; a single value lies on the left."""

    low: float
    factor: float

    def __call__(self, value: float) -> float:
        return round((value - self.low) * self.factor, 2) + 0.0  # -0.0 becomes 0.0


def _thin(series: Series) -> Series:
    step = math.ceil(len(series.x) / _MOST_POINTS)
    if step <= 1:
        return series
    low = None if series.low is None else series.low[::step]
    return Series(series.name, series.x[::step], series.y[::step], low)


def _pieces(x: Sequence[float], y: Sequence[float]) -> list[list[tuple[float, float]]]:
    """Cut a line where it has a gap."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for point in zip(x, y, strict=True):
        if _is(point[1]):
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _points(x_of: _Scale, y_of: _Scale, piece: Sequence[tuple[float, float]]) -> str:
    points = piece if len(piece) > 1 else [piece[0], piece[0]]  # a round cap makes a dot of it
    return " ".join(f"{10 * x_of(x):.0f},{10 * y_of(y):.0f}" for x, y in points)


def _area(x_of: _Scale, y_of: _Scale, series: Series) -> Iterator[str]:
    assert series.low is not None
    for upper, lower in zip(_pieces(series.x, series.y), _pieces(series.x, series.low), strict=True):
        yield _points(x_of, y_of, [*upper, *reversed(lower)])


def _mark(x_of: _Scale, y_of: _Scale, series: Series, at: float | None) -> tuple[tuple[float, float], ...]:
    known = [(abs(x - at), x, y) for x, y in zip(series.x, series.y, strict=True) if _is(y)] if at is not None else []
    return tuple((x_of(x), y_of(y)) for _, x, y in sorted(known)[:1])


def _slices(x_of: _Scale, series: Sequence[Series], x_label: str) -> Iterator[Slice]:
    """Return a strip around every x, with the values of all series there."""
    values = [{x: _said(item, i) for i, x in enumerate(item.x)} for item in series]
    places = sorted(set().union(*values))
    for number, x in enumerate(places):
        before = (places[number - 1] + x) / 2 if number else x
        after = (places[number + 1] + x) / 2 if number + 1 < len(places) else x
        lines = [f"{item.name}: {at[x]}" for item, at in zip(series, values, strict=True) if x in at]
        width = max(x_of(after) - x_of(before), 0.3)
        yield Slice(x_of(before), round(width, 2), "\n".join([f"{x_label} {_text(x)}", *lines]))


def _said(series: Series, i: int) -> str:
    return _value(series.y[i]) if series.low is None else f"{_value(series.low[i])} to {_value(series.y[i])}"


def _value(value: float) -> str:
    return f"{value:.4g}" if _is(value) else "–"


def _text(value: float) -> str:
    return f"{value:.6g}" if abs(value) > 1e-12 else "0"
