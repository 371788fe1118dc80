"""Files of an evaluation: ``results.json``, every number with its protocol, and ``per_frame.parquet``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from pipelines.evaluation.method_evaluator import MethodEvaluator, write_frame_rows
from pipelines.evaluation.metrics import list_metrics
from pipelines.run.files import write_text
from tcam.errors import DataError
from tcam.metrics.corloc import CorLocEvaluator, CorLocResult
from tcam.types import CorLocProtocol

FORMAT = 1
RESULTS, PER_FRAME = "results.json", "per_frame.parquet"
Rows = Sequence[tuple[str, CorLocResult]]


def save_results(
    folder: Path,
    rows: Rows,
    methods: Mapping[str, MethodEvaluator],
    thresholds: Mapping[str, float],
    *,
    split: str,
    chosen_on: str,
) -> None:
    """Write ``results.json`` and ``per_frame.parquet``."""
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
        "rows": [{"method": name, "metric": "CorLoc", **_kind(result), **result.as_dict()} for name, result in rows],
        "metrics": [asdict(metric) for metric in list_metrics(methods, chosen_on)],
        "curves": {
            name: _curve(method.corloc) for name, method in methods.items() if len(method.corloc.thresholds) > 1
        },
        "thresholds": dict(thresholds),
        "chosen_on": chosen_on,
    }
    write_text(folder / RESULTS, json.dumps(results, allow_nan=False) + "\n")
    write_frame_rows(folder / PER_FRAME, list(methods.values()))


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


def _kind(result: CorLocResult) -> dict[str, str]:
    return {"kind": "baseline" if result.protocol.threshold_choice == "none" else "localizer"}


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
