"""One method on the evaluated frames: every figure is counted from boxes that are made once, and one row per frame."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from tcam.files import replacing
from tcam.localization.accuracy import BoxAccuracyEvaluator, rank_of_class
from tcam.localization.boxes import best_overlap
from tcam.localization.corloc import CorLocEvaluator
from tcam.localization.extract import boxes_at_thresholds
from tcam.localization.pxap import PxApEvaluator
from tcam.localization.rules import Overlaps, match_boxes, match_maps, visible_boxes
from tcam.localization.stability import PresenceEvaluator, StabilityEvaluator
from tcam.types import Components, FrameTruth, Size

BENCHMARK_THRESHOLDS: Final = tuple(i / 1000 for i in range(1000))
"""Map thresholds of the WSOL benchmark."""

HAS_CONTOURS: Final = importlib.util.find_spec("numba") is not None
"""Whether the benchmark's contours can be made."""

_TEXTS, _COUNTS = ("method", "video", "class", "pred_class"), ("frame", "width", "height", "num_truth")
_NUMBERS = (
    "class_score",
    "truth_area",
    "tx0",
    "ty0",
    "tx1",
    "ty1",
    "x0",
    "y0",
    "x1",
    "y1",
    "iou",
    "best_iou",
    "map_peak",
)
SCHEMA: Final = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        *((name, pa.int64()) for name in _COUNTS),
        *((name, pa.float64()) for name in _NUMBERS),
    ]
)
"""Columns of ``per_frame.parquet``; coordinates are in original pixels."""


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """What all methods of an evaluation share.

    Attributes:
        class_names: by label.
        iou_threshold: overlap that counts as right.
        components: the rule of CorLoc and of the rows; any but ``largest`` is the WSOL benchmark's.
    """

    class_names: tuple[str, ...]
    iou_threshold: float
    components: Components = "largest"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a localizer says of N frames: maps ``[N, H, W]`` and class probabilities ``[N, K]``, on the CPU.

    ``masks`` are the true ones, as ``PxApEvaluator`` takes them, where any of the frames has one.
    """

    maps: Tensor
    probabilities: Tensor
    masks: Tensor | None = None


class MethodJudge:
    """All evaluators of one method; memory grows with videos, and by a small row per frame.

    Args:
        name: of the method.
        settings: what all methods share.
        thresholds: map thresholds of CorLoc; one for a floor, whose boxes come from no map.
        chosen: the map threshold of the rows and of all figures that take one; None counts CorLoc only.
    """

    def __init__(
        self, name: str, settings: JudgeSettings, thresholds: Sequence[float], chosen: float | None = None
    ) -> None:
        if chosen is not None and min(abs(value - chosen) for value in thresholds) > 1e-6:
            thresholds = sorted([*thresholds, chosen])
        self.name = name
        self.settings = settings
        self.corloc = CorLocEvaluator(
            settings.class_names,
            thresholds,
            iou_threshold=settings.iou_threshold,
            components=settings.components,
        )
        self.full = chosen is not None
        self.chosen = 0.0 if chosen is None else chosen
        self._column = min(range(len(thresholds)), key=lambda i: abs(thresholds[i] - self.chosen))
        count = len(BENCHMARK_THRESHOLDS) if len(thresholds) > 1 else 1
        self.at_chosen = BoxAccuracyEvaluator(1, iou_thresholds=(settings.iou_threshold,))
        self.contour, self.contours = BoxAccuracyEvaluator(count), BoxAccuracyEvaluator(count)
        self.stability = StabilityEvaluator(iou_threshold=settings.iou_threshold)
        self.presence, self.pxap = PresenceEvaluator(), PxApEvaluator()
        self._rows: list[pa.RecordBatch] = []

    def add_maps(self, truth: Sequence[FrameTruth], size: Size, seen: Seen) -> None:
        """Judge the maps of N annotated frames of (height, width); one without boxes is known to hold no object."""
        if self.full and seen.masks is not None:
            self.pxap.add(seen.maps, seen.masks)
        if self.full and not all(item.boxes for item in truth):
            self._add_empty([not item.boxes for item in truth], seen.maps)
        kept = [i for i, item in enumerate(truth) if item.boxes]
        if not kept:
            return
        truth, seen = [truth[i] for i in kept], Seen(seen.maps[kept], seen.probabilities[kept])
        found = match_maps(seen.maps, self.corloc.thresholds, truth, size, components=self.settings.components)
        self.corloc.add(truth, found.value)
        if self.full:
            rank = rank_of_class(seen.probabilities, torch.tensor([item.label for item in truth]))
            self.at_chosen.add(found.value[:, self._column, None], rank)
            if HAS_CONTOURS:
                one, many = (
                    match_maps(seen.maps, BENCHMARK_THRESHOLDS, truth, size, components=components).value
                    for components in ("largest contour", "all contours")
                )
                self.contour.add(one, rank)
                self.contours.add(many)
            self._add_frames(truth, size, found, seen)

    def add_boxes(self, truth: Sequence[FrameTruth], size: Size, box: Tensor) -> None:
        """Judge a box ``[4]``, in original pixels, that is the same in N annotated frames of (height, width)."""
        if self.full:
            empty = torch.tensor([not item.boxes for item in truth])
            self.presence.add(torch.ones_like(empty)[empty], ~empty[empty])
        truth = [item for item in truth if item.boxes]
        if not truth:
            return
        boxes = box.expand(len(truth), 1, 4)
        found = match_boxes(boxes, truth, size, components=self.settings.components)
        self.corloc.add(truth, found.value)
        if self.full:
            on_grid = match_boxes(boxes, truth, size, components="largest contour").value
            self.contour.add(on_grid)
            self.contours.add(on_grid)
            self._add_frames(truth, size, found, None)

    def rows(self) -> list[pa.RecordBatch]:
        """Give the rows so far."""
        return self._rows

    def _add_empty(self, empty: Sequence[bool], maps: Tensor) -> None:
        found = ~boxes_at_thresholds(maps[torch.tensor(empty)], [self.chosen])[:, 0, 0].isnan()
        self.presence.add(found, torch.zeros_like(found))

    def _add_frames(self, truth: Sequence[FrameTruth], size: Size, found: Overlaps, seen: Seen | None) -> None:
        """Count what belongs to the chosen threshold, and keep a row for each frame."""
        boxes = found.boxes[:, self._column]
        true_boxes = visible_boxes(truth, size)
        overlap, which = (part[:, 0] for part in best_overlap(boxes[:, None], true_boxes))
        best_truth = true_boxes[torch.arange(len(truth)), which]
        present = ~boxes[:, 0].isnan()
        self.presence.add(present, torch.ones_like(present))
        self.stability.add([item.video_id for item in truth], boxes, best_truth, overlap)
        areas = (true_boxes[..., 2:] - true_boxes[..., :2]).prod(dim=2).nan_to_num(0.0).amax(dim=1)
        columns: dict[str, list[object]] = {
            "method": [self.name] * len(truth),
            "video": [item.video_id for item in truth],
            "frame": [item.frame_index for item in truth],
            "class": [self.settings.class_names[item.label] for item in truth],
            "width": [size[1]] * len(truth),
            "height": [size[0]] * len(truth),
            "num_truth": [len(item.boxes) for item in truth],
            "truth_area": (areas / (size[0] * size[1])).tolist(),
            **dict(zip(("tx0", "ty0", "tx1", "ty1"), best_truth.T.tolist(), strict=True)),
            **dict(zip(("x0", "y0", "x1", "y1"), boxes.T.tolist(), strict=True)),
            "iou": overlap.tolist(),
            "best_iou": found.value.amax(dim=1).tolist(),
            **self._describe_classes(len(truth), seen),
        }
        self._rows.append(pa.RecordBatch.from_pydict({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA))

    def _describe_classes(self, count: int, seen: Seen | None) -> dict[str, list[object]]:
        if seen is None:
            return {name: [None] * count for name in ("pred_class", "class_score", "map_peak")}
        score, label = seen.probabilities.double().max(dim=1)
        return {
            "pred_class": [self.settings.class_names[i] for i in label.tolist()],
            "class_score": score.tolist(),
            "map_peak": seen.maps.double().flatten(1).amax(dim=1).tolist(),
        }


def write_frame_rows(path: Path, judges: Sequence[MethodJudge]) -> None:
    """Write ``per_frame.parquet``: a row for each method and annotated frame with a true box."""
    table = pa.Table.from_batches([batch for judge in judges for batch in judge.rows()], schema=SCHEMA)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
