"""Order the image files of a folder by the running number in their names, found by comparing the names.

Preparation: a size (``640x480``) becomes text. A time (date, time of day, seconds since 1970) becomes one number if
most names have one. A dash becomes a minus if most names are the same without it. Names are then split into fields at
all characters that are neither letters nor digits. Fields are aligned from the end at which the names agree more; a
field whose shape always changes (a hash) is noise.

A running number differs in all names, is not a time, and has few gaps, at least when divided by its step. It neither
wraps around as seconds do, nor starts again with each scene. Of several, the densest, widest, rightmost one is taken.
If there is none, a time that differs in all names orders them; otherwise names are compared from left to right, noise
last.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby, pairwise
from math import gcd
from operator import attrgetter, itemgetter
from typing import Final

from tcam.video.pictures.image import IMAGE_SUFFIXES
from tcam.video.pictures.stems import MINUS, MOMENT, measure, rewrite_stems, wraps

_Field = tuple[str | int, ...]
"""Text, number, text, ...; the texts may be empty."""

_FORMATS: Final = (".png", ".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".webp")
"""The endings to choose first where there are several."""
_NUMBER: Final = re.compile(r"([-\x01]?\d{1,999})")
_FIELD: Final = re.compile(r"(?:[^\W_]|[\x00\x01])+")
_COVER: Final = re.compile(r"(?<![^\W_])(?:cover|folder|poster|thumb|thumbs|thumbnail|preview)(?![^\W_])")
_SCENE: Final = re.compile(r"s|sc|scene|sh|shot|seq|sequence|take|part|chapter|ep|episode")
"""Words before a number that groups frames: the numbers after it start again with each group."""
_PROPERTY: Final = re.compile(r"cam|camera|view|q|quality|iso|v")
"""Words before a number that does not order frames in time."""


@dataclass(frozen=True, slots=True)
class FrameOrder:
    """The frames of a folder in order, and what was passed over.

    Args:
        names: the frames in order.
        doubles: the same frames in another format (``0001.jpg`` beside ``0001.png``).
        others: covers and previews without a number among numbered frames.
        missing: how many numbers are missing between the first and the last; every 5th frame leaves none out.
        repeated: how many frames share their number with an earlier one (``frame1`` and ``frame01``, two cameras).
        note: one line on what is missing, repeated or passed over; None where all is well.
    """

    names: tuple[str, ...]
    doubles: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    missing: int = 0
    repeated: int = 0
    note: str | None = None


@dataclass(frozen=True, slots=True)
class _Frame:
    """A name, its stem as read, the fields of it that are lined up and no noise, and the natural key of these."""

    name: str
    stem: str
    steady: Sequence[str]
    key: tuple[_Field, ...]


@dataclass(frozen=True, slots=True)
class _Column:
    """One number of the names, frame by frame and sorted, with its fewest digits, the word before it and its place."""

    values: Sequence[int | None]
    ordered: Sequence[int]
    width: int = 0
    word: str = ""
    place: tuple[int, int] = (0, 0)
    is_moment: bool = False


def order_frames(names: Iterable[str]) -> FrameOrder:
    """Return the frames of a folder in order, whatever the order of ``names``; a name given twice counts once."""
    names = set(names)
    stems = _choose_formats(names)
    read = rewrite_stems(list(stems.values()))
    numbered = {name: stem for name, stem in zip(stems, read, strict=True) if _NUMBER.search(stem)}
    others: list[str] = []
    plain = sorted(stems.keys() - numbered.keys(), key=lambda name: (stems[name], name))
    covers = {name for name in plain if _COVER.search(stems[name])}
    if len(plain) - len(covers) < len(numbered):
        plain, others = [name for name in plain if name not in covers], sorted(covers)
    order, doubles = _order_numbered(_line_up(numbered)), sorted(names - stems.keys())
    passed_over = ((doubles, "in another format"), (others, "without a number"))
    notes = [order.note, *(f"{len(left)} {why} passed over ({_show(left[0])})" for left, why in passed_over if left)]
    note = "; ".join(filter(None, notes)) or None
    return replace(order, names=(*plain, *order.names), doubles=tuple(doubles), others=tuple(others), note=note)


def _show(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)


def _choose_formats(names: Iterable[str]) -> dict[str, str]:
    """Return the stem, without case, of each name that has the best ending of its stem, sorted by name."""
    best: dict[str, str] = {}
    for name in names:
        stem, dot, ending = name.rpartition(".")
        stem = stem if dot + ending.lower() in IMAGE_SUFFIXES else name
        best[stem] = min(best[stem], name, key=_rank_format) if stem in best else name
    return {name: stem.casefold() for stem, name in sorted(best.items(), key=itemgetter(1))}


def _rank_format(name: str) -> tuple[int, str]:
    ending = name[name.rfind(".") :].lower()
    return _FORMATS.index(ending) if ending in _FORMATS else len(_FORMATS), name


def _line_up(stems: dict[str, str]) -> list[_Frame]:
    """Return the frames in natural order: by their keys, then by all fields, then by name."""
    rows = [_FIELD.findall(stem) for stem in stems.values()]
    counts = sorted(map(len, rows)) or [0]
    usual = counts[-1 - len(rows) // 10]
    sides = [rows]
    if counts[0] < counts[-1]:
        sides = [[row[:usual] + [""] * (usual - len(row)) for row in rows]]
        sides.append([[""] * (usual - len(row)) + row[-usual:] for row in rows])
    counted = [(_count_shapes(side), side) for side in sides]
    shapes, lined_up = max(counted, key=lambda side: sum(max(count.values()) for count in side[0] if count))
    steady = [at for at, count in enumerate(shapes) if not _is_noise(count, len(rows))]
    kept = lined_up if len(steady) == usual else [[fields[at] for at in steady] for fields in lined_up]
    frames = [
        _Frame(name, stems[name], fields, tuple(map(_cut, fields))) for name, fields in zip(stems, kept, strict=True)
    ]
    frames.sort(key=attrgetter("key"))
    if any(a.key == b.key for a, b in pairwise(frames)):
        frames.sort(key=lambda frame: (frame.key, tuple(map(_cut, _FIELD.findall(frame.stem))), frame.name))
    return frames


def _count_shapes(rows: Sequence[Sequence[str]]) -> list[Counter[str]]:
    """Return, for each field, how many names have which texts around its numbers."""
    return [Counter(_NUMBER.sub("0", field) for field in fields if field) for fields in zip(*rows, strict=True)]


def _is_noise(shapes: Counter[str], frames: int) -> bool:
    """Whether letters and digits alternate in ever new ways, as in a hash."""
    return 1 < len(shapes) > min(frames / 2, 24) and any("0" in shape[:-1] for shape in shapes)


@lru_cache(maxsize=4096)
def _cut(field: str) -> _Field:
    parts: list[str | int] = [*_NUMBER.split(field.replace(MINUS, "-"))]
    parts[1::2] = map(int, parts[1::2])
    return tuple(parts)


def _find_columns(frames: Sequence[_Frame]) -> list[_Column]:
    """Return the numbers of the lined-up fields that nearly all names have."""
    columns = []
    for field, fields in enumerate(zip(*(frame.key for frame in frames), strict=True)):
        for index in range(1, sorted(map(len, fields))[len(fields) // 10], 2):
            having = [frame for frame in frames if index < len(frame.key[field])]
            first = having[0].key
            word = first[field][index - 1] or (first[field - 1][-1] if field and index == 1 else "")
            width = min(len(_NUMBER.findall(frame.steady[field])[index // 2]) for frame in having)
            values = [chunks[index] if index < len(chunks) else None for chunks in fields]
            columns.append(_read_column(values, width, str(word), (field, index)))
    return columns


def _find_stem_columns(frames: Sequence[_Frame]) -> list[_Column]:
    """Return the numbers counted from the left and from the right, whatever the fields; moments do not count."""
    rows = [[int(n) for n in re.findall(r"(?<![\d\0])\d{1,999}", frame.stem)] for frame in frames]
    common = min(map(len, rows))
    return [_read_column([row[at] for row in rows]) for at in (*range(common), *range(-common, 0))]


def _read_column(values: Iterable[object], width: int = 0, word: str = "", place: tuple[int, int] = (0, 0)) -> _Column:
    numbers = [value if isinstance(value, int) else None for value in values]
    ordered = sorted({number for number in numbers if number is not None})
    return _Column(numbers, ordered, width, word, place, word.endswith(MOMENT))


def _find_heads(columns: Sequence[_Column], column: _Column) -> list[_Column]:
    """Return the changing moments and numbers of scenes to the left of a number."""
    left = [c for c in columns if c.place < column.place and len(c.ordered) > 1]
    return [c for c in left if c.is_moment or _SCENE.fullmatch(c.word)]


def _find_running(frames: Sequence[_Frame], columns: Sequence[_Column]) -> _Column | None:
    """Return the running number of frames in natural order, if there is one."""

    def is_running(column: _Column, distinct: int) -> bool:
        dense, by_step = measure(column.ordered)
        few_gaps = dense >= 0.5 or by_step >= 0.9
        unique = len(column.ordered) + column.values.count(None) >= distinct
        return unique and few_gaps and not wraps([v for v in column.values if v is not None], column.width)

    distinct = 1 + sum(a.key != b.key for a, b in pairwise(frames))
    found = []
    for column in columns:
        anew = any(not head.is_moment or column.word == "burst" for head in _find_heads(columns, column))
        if not (anew or column.is_moment or _PROPERTY.fullmatch(column.word)) and is_running(column, distinct):
            found.append(column)
    if not found and distinct < len(frames):
        found = [column for column in _find_stem_columns(frames) if is_running(column, len(frames))]
    return max(reversed(found), key=lambda c: (round(measure(c.ordered)[0], 1), c.width), default=None)


def _order_numbered(frames: Sequence[_Frame]) -> FrameOrder:
    """Return the order of frames that are in natural order, and what is to say about their running number."""
    columns = _find_columns(frames)
    running = _find_running(frames, columns)
    leader = running or next((c for c in columns if c.is_moment and len(c.ordered) == len(frames)), None)
    ranks = list(range(len(frames)))
    if leader is not None:
        keys = [(value is not None, value or 0) for value in leader.values]
        ranks.sort(key=keys.__getitem__)
    if running is not None:
        return _count_gaps(frames, running, [ranks], begins_anew=False)
    for column in reversed(columns) if leader is None else ():
        field, index = column.place
        places = [(frame.key[:field], frame.key[field][:index]) for frame in frames]
        runs = [list(run) for _, run in groupby(ranks, key=places.__getitem__)]
        if not column.is_moment and len(column.ordered) > 1 and len(frames) >= 1.5 * len(runs):
            return _count_gaps(frames, column, runs, begins_anew=bool(_find_heads(columns, column)))
    return FrameOrder(tuple(frames[i].name for i in ranks))


def _count_gaps(frames: Sequence[_Frame], column: _Column, runs: list[list[int]], *, begins_anew: bool) -> FrameOrder:
    """Return the order with what is missing and repeated; ``runs`` are positions of frames whose numbers ascend."""
    numbers = [[(value, i) for i in run if (value := column.values[i]) is not None] for run in runs]
    steps = [(b - a, i) for run in numbers for (a, i), (b, _) in pairwise(run) if a < b]
    step = gcd(*(width for width, _ in steps)) or 1
    missing = sum(width // step - 1 for width, _ in steps)
    if missing > len(frames) and 2 * sum(width == step for width, _ in steps) < len(steps):
        missing = 0  # frames picked here and there
    distinct = sum(len({value for value, _ in run}) for run in numbers) if begins_anew else len(column.ordered)
    repeated = sum(map(len, numbers)) - distinct
    notes = []
    if missing:
        before = next(frames[i].name for width, i in steps if width > step)
        notes.append(f"{missing} frame number{'s' * (missing > 1)} missing (first after {_show(before)})")
    if repeated:
        notes.append(f"{repeated} frame{'s share their' if repeated > 1 else ' shares its'} number with an earlier one")
    ordered = tuple(frames[i].name for run in runs for i in run)
    return FrameOrder(ordered, missing=missing, repeated=repeated, note="; ".join(notes) or None)
