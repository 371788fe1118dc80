"""Files of an evaluation: ``results.json``, every number with its protocol, and ``per_frame.parquet``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pipelines.files import write_text
from pipelines.judge import HAS_CONTOURS, MethodJudge, write_frame_rows
from tcam.errors import DataError
from tcam.localization.corloc import CorLocEvaluator, CorLocResult
from tcam.types import CorLocProtocol

FORMAT = 1
RESULTS, PER_FRAME = "results.json", "per_frame.parquet"
Rows = Sequence[tuple[str, CorLocResult]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One further figure of a method; None where there is nothing to count it from."""

    method: str
    name: str
    value: float | None
    unit: str
    protocol: str


def save_results(
    folder: Path,
    rows: Rows,
    judges: Mapping[str, MethodJudge],
    thresholds: Mapping[str, float],
    *,
    split: str,
    chosen_on: str,
) -> None:
    """Write ``results.json`` and ``per_frame.parquet``."""
    some = next(iter(judges.values())).corloc
    first = rows[0][1]
    results = {
        "format": FORMAT,
        "split": split,
        "class_names": list(some.class_names),
        "frames_per_class": dict(first.frames_per_class),
        "videos_per_class": some.videos_per_class(),
        "num_frames": first.num_frames,
        "num_videos": len(first.per_video),
        "rows": [{"method": name, "metric": "CorLoc", **_kind(result), **result.as_dict()} for name, result in rows],
        "metrics": [_as_dict(metric) for metric in list_metrics(judges, chosen_on)],
        "curves": {name: _curve(judge.corloc) for name, judge in judges.items() if len(judge.corloc.thresholds) > 1},
        "thresholds": dict(thresholds),
        "chosen_on": chosen_on,
    }
    write_text(folder / RESULTS, json.dumps(results, allow_nan=False) + "\n")
    write_frame_rows(folder / PER_FRAME, list(judges.values()))


def read_rows(path: Path) -> list[tuple[str, CorLocResult]]:
    """Read the CorLoc rows of a ``results.json``.

    Raises:
        DataError: the file is missing or is no such table.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            raise ValueError(f"format {stored['format']}")
        return [(str(row["method"]), _read_result(row)) for row in stored["rows"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"expected results of format {FORMAT} in {path}, found none ({error})") from None


def list_metrics(judges: Mapping[str, MethodJudge], chosen_on: str) -> list[Metric]:
    """Give every figure besides CorLoc, each with its protocol in a sentence."""
    return [metric for judge in judges.values() if judge.full for metric in _metrics_of(judge, chosen_on)]


def _metrics_of(judge: MethodJudge, chosen_on: str) -> list[Metric]:
    floor = len(judge.corloc.thresholds) == 1
    own, single, multi = judge.at_chosen.compute(), judge.contour.compute(), judge.contours.compute()
    steady, (presence, false_alarms) = judge.stability.compute(), judge.presence.compute()
    level = f"{judge.settings.iou_threshold:g}"
    at = "no map" if floor else f"map threshold: {chosen_on} ({judge.chosen:g})"
    rule = (
        "largest component, plain IoU" if judge.settings.components == "largest" else "the benchmark's largest contour"
    )
    best = "no map" if floor else "best of 1000 map thresholds on the evaluated frames (oracle)"
    grid = "over frames, WSOL benchmark: 224 grid, inclusive-pixel IoU"
    missing = "" if HAS_CONTOURS or floor else "; not counted: needs numba"
    top = f"over frames, true class among the k most probable and IoU >= {level}, {rule}, {at}"
    oracle = f"{grid}, true class among the k most probable and IoU >= 0.5, largest contour, {best}{missing}"
    found = [
        ("MaxBoxAcc", single.max_box_acc[0.5], f"{grid} >= 0.5, largest contour, {best}{missing}"),
        (
            "MaxBoxAccV2",
            multi.max_box_acc_v2,
            f"{grid}, mean of IoU >= 0.3, 0.5, 0.7, best of all contours, {best}{missing}",
        ),
    ]
    if not floor:
        for k in (1, 5):
            found += [
                (
                    f"Top-{k} localization",
                    own.top_localization[k][judge.settings.iou_threshold],
                    top.replace("k", str(k), 1),
                ),
                (f"Top-{k} localization, oracle", single.top_localization[k][0.5], oracle),
            ]
        found += [("Classification accuracy", own.top_accuracy[1], "over frames, true class is the most probable")]
    steps = "lower is steadier, mean over videos of annotated frames, arXiv:1611.06467"
    found += [
        (
            "Temporal stability: fragments",
            steady.fragment,
            f"steps where right (IoU >= {level}) turns wrong or back, {at}; {steps}",
        ),
        (
            "Temporal stability: centre",
            steady.centre,
            f"spread of the centre's error in widths and heights of the true box, {at}; {steps}",
        ),
        (
            "Temporal stability: scale and ratio",
            steady.scale_ratio,
            f"spread of size and aspect against the true box, {at}; {steps}",
        ),
        ("Presence", presence, f"frames with an object where a box was found, {at}"),
        ("Presence: false alarms", false_alarms, f"frames known to hold no object where a box was found, {at}"),
    ]
    return [Metric(judge.name, name, None if math.isnan(value) else value, "%", text) for name, value, text in found]


def _as_dict(metric: Metric) -> dict[str, object]:
    return {name: getattr(metric, name) for name in ("method", "name", "value", "unit", "protocol")}


def _kind(result: CorLocResult) -> dict[str, str]:
    return {"kind": "floor" if result.protocol.threshold_choice == "none" else "localizer"}


def _curve(evaluator: CorLocEvaluator) -> dict[str, object]:
    def plain(values: Tensor) -> list[float | None]:
        return [None if math.isnan(value) else round(value, 3) for value in values.tolist()]

    return {
        "thresholds": list(evaluator.thresholds),
        "macro": plain(evaluator.macro_accuracy()),
        "micro": plain(evaluator.accuracy()),
        "per_class": {name: plain(evaluator.accuracy(label)) for label, name in enumerate(evaluator.class_names)},
    }


def _read_result(row: Mapping[str, Any]) -> CorLocResult:
    """Undo ``CorLocResult.as_dict``."""
    return CorLocResult(
        protocol=CorLocProtocol(
            row["threshold_choice"], row["iou_threshold"], inclusive=row["inclusive"], components=row["components"]
        ),
        threshold=row["threshold"],
        thresholds_per_class=row["thresholds_per_class"],
        per_class={name: _or_nan(value) for name, value in row["per_class"].items()},
        macro=_or_nan(row["macro"]),
        micro=_or_nan(row["micro"]),
        num_frames=row["num_frames"],
        per_video={name: _or_nan(value) for name, value in row["per_video"].items()},
        frames_per_class=row["frames_per_class"],
        interval=None if row["interval"] is None else (row["interval"][0], row["interval"][1]),
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
