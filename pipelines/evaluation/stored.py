"""What an evaluation stored (``results.json`` and ``per_frame.parquet``), read for pages that people look at."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pandas as pd

from tcam.errors import DataError
from tcam.metrics.corloc import CorLocResult

FORMAT: Final = 1
COLUMNS: Final = (
    *("method", "video", "frame", "class", "width", "height", "truth_area"),
    *("tx0", "ty0", "tx1", "ty1", "x0", "y0", "x1", "y1", "iou"),
)
"""Columns of ``per_frame.parquet`` that pages are made from; it may hold more."""


@dataclass(frozen=True, slots=True)
class Score:
    """One row of the results: a method under one protocol, in percent; NaN where there is no frame.

    ``kind`` is ``localizer`` or ``baseline``; ``interval`` holds 95 % of the bootstrap draws of videos of ``macro``.
    """

    method: str
    kind: str
    protocol: str
    threshold_choice: str
    per_class: Mapping[str, float]
    macro: float
    micro: float
    num_frames: int
    metric: str = "CorLoc"
    threshold: float | None = None
    interval: tuple[float, float] | None = None
    iou_threshold: float = 0.5
    inclusive: bool = False
    per_video: Mapping[str, float] = field(default_factory=dict)

    @property
    def fair(self) -> bool:
        """Whether the threshold was chosen without a look at the boxes it is judged by."""
        return not self.threshold_choice.startswith("oracle")

    @property
    def threshold_text(self) -> str:
        """Which map threshold was used and how it was chosen."""
        if self.threshold_choice == "none":
            return "no map"
        chosen = "" if self.threshold is None else f"{self.threshold:.2f} "
        return f"{chosen}({self.threshold_choice})" if chosen else self.threshold_choice

    @property
    def overlap_text(self) -> str:
        """How a box is judged: ``IoU >= 0.5`` or ``inclusive IoU >= 0.5``."""
        return f"{'inclusive ' if self.inclusive else ''}IoU >= {self.iou_threshold:g}"


@dataclass(frozen=True, slots=True)
class Metric:
    """Another number of a method with its protocol; ``value`` is NaN where there is none."""

    method: str
    name: str
    value: float
    unit: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Curve:
    """CorLoc in percent at L map thresholds: over classes, over frames, by class."""

    thresholds: Sequence[float]
    macro: Sequence[float]
    micro: Sequence[float]
    per_class: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that one evaluation found. ``frames`` has a row per method and annotated frame, ``COLUMNS`` or more."""

    split: str
    class_names: tuple[str, ...]
    scores: tuple[Score, ...]
    frames_per_class: Mapping[str, int] = field(default_factory=dict)
    videos_per_class: Mapping[str, int] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    frames: pd.DataFrame | None = None

    @property
    def num_frames(self) -> int:
        """Annotated frames judged."""
        return max((score.num_frames for score in self.scores), default=0)

    @property
    def num_videos(self) -> int:
        """Videos judged."""
        return len({video for score in self.scores for video in score.per_video})

    @property
    def localizers(self) -> tuple[str, ...]:
        """Names of the methods that look at pixels; the last one is the run's own."""
        return tuple(dict.fromkeys(score.method for score in self.scores if score.kind == "localizer"))

    def fair_score(self, method: str) -> Score | None:
        """Return a method's plain CorLoc at a threshold that was not chosen on these frames, if there is one."""
        scores = [item for item in self.scores if item.method == method and item.fair and item.metric == "CorLoc"]
        return min(scores, key=lambda item: item.inclusive, default=None)

    def frames_of(self, method: str) -> pd.DataFrame:
        """Return a method's rows of ``frames``, in order of video and frame; empty where nothing was stored."""
        if self.frames is None:
            return pd.DataFrame(columns=list(COLUMNS))
        return self.frames[self.frames["method"] == method].sort_values(["video", "frame"])


def evaluation_of(rows: Sequence[tuple[str, CorLocResult]], *, split: str = "test") -> Evaluation:
    """Make a table of CorLoc results readable as an evaluation that has no frames and no curves.

    Raises:
        ValueError: the rows are of different classes.
    """
    classes = [tuple(result.per_class) for _, result in rows]
    if any(names != classes[0] for names in classes):
        raise ValueError(f"rows must share their classes, got {sorted(set(classes))}")
    scores = tuple(
        Score(
            method=name,
            kind="baseline" if result.protocol.threshold_choice == "none" else "localizer",
            protocol=str(result.protocol),
            threshold_choice=result.protocol.threshold_choice,
            per_class=result.per_class,
            macro=result.macro,
            micro=result.micro,
            num_frames=result.num_frames,
            threshold=result.threshold,
            iou_threshold=result.protocol.iou_threshold,
            inclusive=result.protocol.inclusive,
            per_video=result.per_video,
            interval=result.interval,
        )
        for name, result in rows
    )
    counts = rows[0][1].frames_per_class if rows else {}
    return Evaluation(split, classes[0] if classes else (), scores, counts)


def read_evaluation(folder: Path) -> Evaluation:
    """Read ``results.json`` and, where it is there, ``per_frame.parquet``.

    Raises:
        DataError: a file is missing, damaged or of another format.
    """
    path = folder / "results.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            raise ValueError(f"format {stored['format']} instead of {FORMAT}")
        return Evaluation(
            split=str(stored["split"]),
            class_names=tuple(map(str, stored["class_names"])),
            scores=tuple(_read_score(row) for row in stored["rows"]),
            frames_per_class=dict(stored["frames_per_class"]),
            videos_per_class=dict(stored["videos_per_class"]),
            metrics=tuple(_read_metric(item) for item in stored["metrics"]),
            curves={str(name): _read_curve(curve) for name, curve in stored["curves"].items()},
            thresholds={str(name): float(value) for name, value in stored["thresholds"].items()},
            frames=_read_frames(folder / "per_frame.parquet"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise DataError(
            f"expected the results of an evaluation in {path}, found none ({reason}); make them with 'tcam evaluate'"
        ) from None


def _read_frames(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    frames = pd.read_parquet(path)
    missing = [name for name in COLUMNS if name not in frames]
    if missing:
        raise ValueError(f"{path.name} has no column {missing[0]}")
    return frames


def _read_score(row: Mapping[str, Any]) -> Score:
    interval = row.get("interval")
    return Score(
        method=str(row["method"]),
        kind=str(row["kind"]),
        metric=str(row["metric"]),
        protocol=str(row["protocol"]),
        threshold_choice=str(row["threshold_choice"]),
        per_class=_percentages(row["per_class"]),
        macro=_number(row["macro"]),
        micro=_number(row["micro"]),
        num_frames=int(row["num_frames"]),
        threshold=None if row["threshold"] is None else float(row["threshold"]),
        interval=None if interval is None else (_number(interval[0]), _number(interval[1])),
        iou_threshold=float(row["iou_threshold"]),
        inclusive=bool(row["inclusive"]),
        per_video=_percentages(row["per_video"]),
    )


def _read_metric(item: Mapping[str, Any]) -> Metric:
    method, name, unit, protocol = (str(item[key]) for key in ("method", "name", "unit", "protocol"))
    return Metric(method, name, _number(item["value"]), unit, protocol)


def _read_curve(curve: Mapping[str, Any]) -> Curve:
    thresholds, macro, micro = ([_number(v) for v in curve[key]] for key in ("thresholds", "macro", "micro"))
    per_class = {str(name): [_number(v) for v in values] for name, values in curve["per_class"].items()}
    return Curve(thresholds, macro, micro, per_class)


def _percentages(values: Mapping[str, float | None]) -> dict[str, float]:
    return {str(name): _number(value) for name, value in values.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def describe_threshold(result: CorLocResult) -> str:
    """Describe which map threshold a result used and how it was chosen."""
    return evaluation_of([("", result)]).scores[0].threshold_text
