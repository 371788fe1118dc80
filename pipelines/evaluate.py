"""Stage "evaluation": localizers and floors against truth boxes, every number with its protocol.

The map threshold is chosen on the validation split and stored with the run; the best threshold on the evaluated set
itself is reported second, as an oracle.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from pipelines.config import EvaluationSettings
from pipelines.files import write_json
from pipelines.localizer import Localizer
from pipelines.report import describe_threshold
from pipelines.runlog import console, progress_bar
from pipelines.selection import threshold_grid
from tcam.errors import DataError, VideoError
from tcam.localization.boxes import centre_box, full_frame_box, scale_boxes
from tcam.localization.corloc import CorLocEvaluator, CorLocResult, ThresholdChoice
from tcam.localization.extract import boxes_at_thresholds
from tcam.types import Box, CorLocProtocol, FrameTruth, Size, VideoIndex, VideoRecord
from tcam.video.dataset import stream_original
from tcam.video.reader import DecodedFrame

FLOORS: Mapping[str, Callable[[Size], Box]] = {
    "centre box (50 %)": lambda size: centre_box(size, 0.5),
    "full frame": full_frame_box,
}
"""Boxes that look at no pixel: what a method must beat."""


@dataclass(frozen=True, slots=True)
class ScoredSet:
    """Evaluators by method name, of one set of videos, and the videos that could not be read."""

    evaluators: Mapping[str, CorLocEvaluator]
    failures: tuple[tuple[str, str], ...]

    def best_thresholds(self) -> dict[str, float]:
        """Give every localizer's best threshold on this set (macro CorLoc)."""
        return {name: item.best_threshold() for name, item in self.evaluators.items() if name not in FLOORS}


def score_videos(
    localizers: Mapping[str, Localizer],
    index: VideoIndex,
    records: Sequence[VideoRecord],
    truth: Sequence[FrameTruth],
    *,
    settings: EvaluationSettings,
    size: Size,
) -> ScoredSet:
    """Run localizers over the annotated frames of some videos; each video is decoded once, memory does not grow.

    Raises:
        DataError: none of the videos has a box.
    """
    thresholds = threshold_grid(settings.threshold_step)
    evaluators = {
        name: CorLocEvaluator(
            index.class_names, [0.0] if name in FLOORS else thresholds, iou_threshold=settings.iou_threshold
        )
        for name in (*FLOORS, *localizers)
    }
    by_video: dict[str, dict[int, FrameTruth]] = {}
    for item in truth:
        by_video.setdefault(item.video_id, {})[item.frame_index] = item
    judged = [record for record in records if record.video_id in by_video]
    if not judged:
        raise DataError(
            "expected boxes to compare with (boxes.csv: video,frame,x0,y0,x1,y1), found none for these videos"
        )
    failures = []
    grid = torch.tensor(thresholds, dtype=torch.float64)
    with progress_bar() as bar:
        task = bar.add_task("evaluation", total=len(judged))
        for record in judged:
            try:
                for batch in _annotated_batches(record, by_video[record.video_id], settings.batch, size):
                    _score_batch(batch, record, localizers, evaluators, grid)
            except VideoError as error:
                failures.append((record.video_id, str(error)))
            bar.advance(task)
    return ScoredSet(evaluators, tuple(failures))


def _annotated_batches(
    record: VideoRecord, truth: Mapping[int, FrameTruth], batch: int, size: Size
) -> Iterator[list[tuple[DecodedFrame, FrameTruth]]]:
    frames = stream_original(record, size=size, only=truth)
    annotated = ((frame, truth[frame.index]) for frame in frames)
    while chunk := list(itertools.islice(annotated, batch)):
        yield chunk


def _score_batch(
    batch: list[tuple[DecodedFrame, FrameTruth]],
    record: VideoRecord,
    localizers: Mapping[str, Localizer],
    evaluators: Mapping[str, CorLocEvaluator],
    grid: Tensor,
) -> None:
    frames = torch.stack([frame.pixels for frame, _ in batch])
    input_size = (frames.shape[2], frames.shape[3])
    labels = torch.full((len(frames),), record.label)
    for name, localizer in localizers.items():
        maps = localizer(frames, labels).maps.cpu()
        for one_map, (_, truth) in zip(maps, batch, strict=True):
            boxes = scale_boxes(boxes_at_thresholds(one_map, grid), input_size, record.size)
            evaluators[name].add(truth, boxes)
    for name, make in FLOORS.items():
        box = torch.tensor([list(make(record.size))], dtype=torch.float64)
        for _, truth in batch:
            evaluators[name].add(truth, box)


def results_table(scored: ScoredSet, thresholds: Mapping[str, float]) -> list[tuple[str, CorLocResult]]:
    """List (method, result) rows: floors, then each localizer with the given threshold, then each with its oracle."""
    rows = [(name, scored.evaluators[name].table("none", 0.0)) for name in scored.evaluators if name in FLOORS]
    names = [name for name in scored.evaluators if name not in FLOORS]
    rows += [
        (name, scored.evaluators[name].table("validation", thresholds[name])) for name in names if name in thresholds
    ]
    rows += [(name, scored.evaluators[name].table("oracle")) for name in names]
    return rows


def save_thresholds(path: Path, thresholds: Mapping[str, float], *, chosen_on: str) -> None:
    """Store the map threshold of each method of a run, and what chose it."""
    write_json(path, {"thresholds": dict(thresholds), "chosen_on": chosen_on})


def save_rows(path: Path, rows: Sequence[tuple[str, CorLocResult]]) -> None:
    """Store a table for programs: one object per row, every number with its protocol."""
    write_json(path, [{"method": name, **result.as_dict()} for name, result in rows])


def read_rows(path: Path) -> list[tuple[str, CorLocResult]]:
    """Read what ``save_rows`` stored.

    Raises:
        DataError: the file is missing or is no such table.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return [(str(row.pop("method")), _read_result(row)) for row in stored]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"expected a table of CorLoc results in {path}, found none ({error})") from None


def _read_result(row: dict[str, Any]) -> CorLocResult:
    """Undo ``CorLocResult.as_dict``."""
    overlap = re.search(r"IoU >= ([\d.e-]+)", row["protocol"])
    if overlap is None:
        raise ValueError(f"no IoU in '{row['protocol']}'")
    choices = get_args(ThresholdChoice)
    known = {str(protocol): protocol for protocol in (CorLocProtocol(c, float(overlap[1])) for c in choices)}
    row["protocol"] = known[row["protocol"]]
    for name in ("macro", "micro"):
        row[name] = _or_nan(row[name])
    for name in ("per_class", "per_video"):
        row[name] = {key: _or_nan(value) for key, value in row[name].items()}
    return CorLocResult(**row)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def read_thresholds(path: Path) -> tuple[dict[str, float], str]:
    """Read what ``save_thresholds`` stored.

    Raises:
        DataError: the run has no thresholds yet.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): float(value) for name, value in stored["thresholds"].items()}, str(stored["chosen_on"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"expected the run's map thresholds in {path}, found none ({error}); resume the run") from None


def print_table(rows: Sequence[tuple[str, CorLocResult]], title: str) -> None:
    """Show the rows on stderr as people read them."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    classes = list(rows[0][1].per_class)
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in ("method", "threshold", *classes, "mean", "frames %"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for name, result in rows:
        values = [result.per_class[c] for c in classes]
        table.add_row(name, describe_threshold(result), *(percent(v) for v in (*values, result.macro, result.micro)))
    console.print(table)
    for protocol in dict.fromkeys(str(result.protocol) for _, result in rows):
        console.print(protocol, style="dim")


def percent(value: float) -> str:
    """Write a percentage, or a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:.1f}"
