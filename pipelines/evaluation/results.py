"""The results of an evaluation: their types, and the one place that writes and reads them.

``results.json`` holds every number with its protocol, ``per_frame.parquet`` a row for each method and annotated frame.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd

from pipelines.evaluation.method_evaluator import MethodEvaluator, write_frame_rows
from pipelines.evaluation.metrics import Metric, list_metrics
from pipelines.run.files import write_text
from tcam.errors import DataError
from tcam.metrics.corloc import CorLocEvaluator, CorLocResult
from tcam.types import CorLocProtocol

FORMAT: Final = 1
RESULTS, PER_FRAME = "results.json", "per_frame.parquet"
COLUMNS: Final = (
    *("method", "video", "frame", "class", "width", "height", "truth_area"),
    *("tx0", "ty0", "tx1", "ty1", "x0", "y0", "x1", "y1", "iou"),
)
"""Columns of ``per_frame.parquet`` that reports read; it may hold more."""

Rows = Sequence[tuple[str, CorLocResult]]
"""Methods and their CorLoc, one row per method and protocol; a ``Score`` is such a pair."""


class Score(NamedTuple):
    """The CorLoc of one method under one protocol."""

    method: str
    result: CorLocResult

    @property
    def protocol(self) -> CorLocProtocol:
        """What the numbers depend on besides the boxes."""
        return self.result.protocol

    @property
    def kind(self) -> str:
        """``baseline`` for boxes that come from no map, ``localizer`` for all others."""
        return "baseline" if self.protocol.threshold_choice == "none" else "localizer"

    @property
    def fair(self) -> bool:
        """Whether the threshold was chosen without the boxes it is scored on."""
        return not self.protocol.threshold_choice.startswith("oracle")

    @property
    def threshold_text(self) -> str:
        """Which map threshold was used and how it was chosen."""
        choice, threshold = self.protocol.threshold_choice, self.result.threshold
        if choice == "none":
            return "no map"
        return choice if threshold is None else f"{threshold:.2f} ({choice})"

    @property
    def overlap_text(self) -> str:
        """The overlap that a correct box must reach: ``IoU >= 0.5`` or ``inclusive IoU >= 0.5``."""
        return f"{'inclusive ' if self.protocol.inclusive else ''}IoU >= {self.protocol.iou_threshold:g}"


@dataclass(frozen=True, slots=True)
class Curve:
    """CorLoc in percent at L map thresholds: mean over classes, over frames, and by class."""

    thresholds: Sequence[float]
    macro: Sequence[float]
    micro: Sequence[float]
    per_class: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of one evaluation. ``frames`` has a row per method and annotated frame, with ``COLUMNS`` or more."""

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
        """Number of annotated frames scored."""
        return max((score.result.num_frames for score in self.scores), default=0)

    @property
    def num_videos(self) -> int:
        """Number of videos scored."""
        return len({video for score in self.scores for video in score.result.per_video})

    @property
    def localizers(self) -> tuple[str, ...]:
        """Names of the methods that look at pixels; the last one is the run's own."""
        return tuple(dict.fromkeys(score.method for score in self.scores if score.kind == "localizer"))

    def fair_score(self, method: str) -> Score | None:
        """Return a method's score at a threshold that was not chosen on these frames, if there is one.

        Plain IoU is preferred to the benchmark's inclusive IoU.
        """
        scores = [item for item in self.scores if item.method == method and item.fair]
        return min(scores, key=lambda item: item.protocol.inclusive, default=None)

    def frames_of(self, method: str) -> pd.DataFrame:
        """Return a method's rows of ``frames``, sorted by video and frame; empty where no frames were stored."""
        if self.frames is None:
            return pd.DataFrame(columns=list(COLUMNS))
        return self.frames[self.frames["method"] == method].sort_values(["video", "frame"])


def evaluation_of(rows: Rows, *, split: str = "test") -> Evaluation:
    """Wrap a table of CorLoc results as an evaluation that has no frames and no curves.

    Raises:
        ValueError: the rows are of different classes.
    """
    classes = [tuple(result.per_class) for _, result in rows]
    if any(names != classes[0] for names in classes):
        raise ValueError(f"rows must share their classes, got {sorted(set(classes))}")
    counts = rows[0][1].frames_per_class if rows else {}
    return Evaluation(split, classes[0] if classes else (), tuple(Score(*row) for row in rows), counts)


def save_results(
    folder: Path,
    rows: Rows,
    methods: Mapping[str, MethodEvaluator],
    thresholds: Mapping[str, float],
    *,
    split: str,
    chosen_on: str,
) -> None:
    """Write ``results.json`` and ``per_frame.parquet``.

    Args:
        folder: where to write them.
        rows: the CorLoc table.
        methods: the evaluators that the table was counted by, for the other metrics, the curves and the frames.
        thresholds: the map threshold of each localizer.
        split: the videos that were scored.
        chosen_on: where the thresholds come from: ``validation``, ``tags`` or ``default``.
    """
    some = next(iter(methods.values())).corloc
    first = rows[0][1]
    results = {
        "format": FORMAT,
        "split": split,
        "class_names": list(some.class_names),
        "frames_per_class": dict(first.frames_per_class),
        "videos_per_class": some.videos_per_class(),
        "num_frames": first.num_frames,
        "num_videos": len(first.per_video),
        "rows": [_row(Score(*row)) for row in rows],
        "metrics": [{**asdict(item), "value": _or_none(item.value)} for item in list_metrics(methods, chosen_on)],
        "curves": {
            name: _curve(method.corloc) for name, method in methods.items() if len(method.corloc.thresholds) > 1
        },
        "thresholds": dict(thresholds),
        "chosen_on": chosen_on,
    }
    write_text(folder / RESULTS, json.dumps(results, allow_nan=False) + "\n")
    write_frame_rows(folder / PER_FRAME, list(methods.values()))


def read_evaluation(folder: Path) -> Evaluation:
    """Read ``results.json`` and, where it is there, ``per_frame.parquet``.

    Raises:
        DataError: a file is missing, damaged or of another format.
    """
    path = folder / RESULTS
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            raise ValueError(f"format {stored['format']} instead of {FORMAT}")
        return Evaluation(
            split=str(stored["split"]),
            class_names=tuple(map(str, stored["class_names"])),
            scores=tuple(Score(str(row["method"]), _read_result(row)) for row in stored["rows"]),
            frames_per_class=dict(stored["frames_per_class"]),
            videos_per_class=dict(stored["videos_per_class"]),
            metrics=tuple(_read_metric(item) for item in stored["metrics"]),
            curves={str(name): _read_curve(curve) for name, curve in stored["curves"].items()},
            thresholds={str(name): float(value) for name, value in stored["thresholds"].items()},
            frames=_read_frames(folder / PER_FRAME),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise DataError(
            f"expected the results of an evaluation in {path}, found none ({reason}); make them with 'tcam evaluate'"
        ) from None


def _row(score: Score) -> dict[str, object]:
    return {"method": score.method, "metric": "CorLoc", "kind": score.kind, **score.result.as_dict()}


def _read_result(row: Mapping[str, Any]) -> CorLocResult:
    """Undo ``CorLocResult.as_dict``."""
    per_class_thresholds, interval = row["thresholds_per_class"], row["interval"]
    return CorLocResult(
        protocol=CorLocProtocol(
            row["threshold_choice"],
            float(row["iou_threshold"]),
            inclusive=bool(row["inclusive"]),
            components=row["components"],
        ),
        threshold=None if row["threshold"] is None else float(row["threshold"]),
        thresholds_per_class=None if per_class_thresholds is None else dict(per_class_thresholds),
        per_class=_percentages(row["per_class"]),
        macro=_or_nan(row["macro"]),
        micro=_or_nan(row["micro"]),
        num_frames=int(row["num_frames"]),
        per_video=_percentages(row["per_video"]),
        frames_per_class=dict(row["frames_per_class"]),
        interval=None if interval is None else (_or_nan(interval[0]), _or_nan(interval[1])),
    )


def _read_metric(item: Mapping[str, Any]) -> Metric:
    method, name, unit, protocol = (str(item[key]) for key in ("method", "name", "unit", "protocol"))
    return Metric(method, name, _or_nan(item["value"]), unit, protocol)


def _curve(evaluator: CorLocEvaluator) -> dict[str, object]:
    def rounded(values: Sequence[float]) -> list[float | None]:
        return [None if math.isnan(value) else round(value, 3) for value in values]

    classes = enumerate(evaluator.class_names)
    return {
        "thresholds": list(evaluator.thresholds),
        "macro": rounded(evaluator.macro_accuracy().tolist()),
        "micro": rounded(evaluator.accuracy().tolist()),
        "per_class": {name: rounded(evaluator.accuracy(label).tolist()) for label, name in classes},
    }


def _read_curve(curve: Mapping[str, Any]) -> Curve:
    thresholds, macro, micro = ([_or_nan(v) for v in curve[key]] for key in ("thresholds", "macro", "micro"))
    per_class = {str(name): [_or_nan(v) for v in values] for name, values in curve["per_class"].items()}
    return Curve(thresholds, macro, micro, per_class)


def _read_frames(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    frames = pd.read_parquet(path)
    missing = [name for name in COLUMNS if name not in frames]
    if missing:
        raise ValueError(f"{path.name} has no column {missing[0]}")
    return frames


def _percentages(values: Mapping[str, float | None]) -> dict[str, float]:
    return {str(name): _or_nan(value) for name, value in values.items()}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
