"""Evaluate one method: boxes are made once per frame, and every metric and the table of frames is counted from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pipelines.models.engine import FrameMaps
from tcam.boxes.boxes import best_overlap
from tcam.boxes.extract import boxes_at_thresholds
from tcam.files import replacing
from tcam.metrics.accuracy import BoxAccuracyEvaluator, rank_of_class
from tcam.metrics.corloc import CorLocEvaluator
from tcam.metrics.pxap import PxApEvaluator
from tcam.metrics.rules import Overlaps, match_boxes, match_maps, visible_boxes
from tcam.metrics.stability import PresenceEvaluator, StabilityEvaluator
from tcam.types import Components, FrameTruth, Size

BENCHMARK_THRESHOLDS: Final = tuple(i / 1000 for i in range(1000))
"""Map thresholds of the WSOL benchmark."""

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
class EvaluatorSettings:
    """Settings that all methods of an evaluation share.

    Attributes:
        class_names: by label.
        iou_threshold: IoU that a correct box must reach.
        components: the rule of CorLoc and of the rows; any but ``largest`` is the WSOL benchmark's.
    """

    class_names: tuple[str, ...]
    iou_threshold: float
    components: Components = "largest"


@dataclass(frozen=True, slots=True)
class Seen:
    """A localizer's output for N frames: maps ``[N, H, W]`` and class probabilities ``[N, K]``, on the CPU.

    ``masks`` are the true masks as ``PxApEvaluator`` takes them; None if no frame has one.
    """

    maps: Tensor
    probabilities: Tensor
    masks: Tensor | None = None

    @classmethod
    def join(cls, parts: Sequence[FrameMaps[Tensor]], masks: Tensor | None) -> Seen:
        """Return the output for all frames of the parts, whose true masks these are."""
        maps, probabilities = [part.maps for part in parts], [part.probabilities for part in parts]
        return cls(torch.cat(maps).float().cpu(), torch.cat(probabilities).float().cpu(), masks)


@dataclass(frozen=True, slots=True)
class Findings:
    """The overlaps of N annotated frames, before they are counted; small enough to send between processes.

    Attributes:
        in_empty: whether a box was found in each frame that is known to hold no object.
        values: IoU at every map threshold ``[M, L]`` of the M frames with boxes; None if there are none.
        at_chosen: IoU and box at the chosen threshold only: ``[M]``, ``[M, 4]``.
        contours: IoU of the benchmark's largest contour and of its best contour, ``[M, 1000]`` each.
        probabilities: ``[M, K]``.
        peaks: maximum of each map, ``[M]``.
        pixels: histograms of the frames that have a mask (``PxApEvaluator.counts``).
    """

    in_empty: Tensor | None = None
    values: Tensor | None = None
    at_chosen: Overlaps | None = None
    contours: tuple[Tensor, Tensor] | None = None
    probabilities: Tensor | None = None
    peaks: Tensor | None = None
    pixels: Tensor | None = None


class MethodEvaluator:
    """All metrics of one method. Memory grows with the number of videos, and by one small row per frame.

    Args:
        name: name of the method.
        settings: shared by all methods.
        thresholds: map thresholds of CorLoc; a single one for a baseline, whose boxes come from no map.
        chosen: the map threshold for the rows and for metrics that need one; None counts CorLoc only.
    """

    def __init__(
        self, name: str, settings: EvaluatorSettings, thresholds: Sequence[float], chosen: float | None = None
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

    def measure(self, truth: Sequence[FrameTruth], size: Size, seen: Seen) -> Findings:
        """Compare the maps of N annotated frames with their true boxes; ``size`` is their (height, width).

        This is the slow part. It counts nothing, so it may run in another process; ``update`` counts its result. A
        frame without boxes is known to hold no object.
        """
        empty = [i for i, item in enumerate(truth) if not item.boxes]
        found_in_empty = None
        if self.full and empty:
            found_in_empty = ~boxes_at_thresholds(seen.maps[empty], [self.chosen])[:, 0, 0].isnan()
        pixels = PxApEvaluator()
        if self.full and seen.masks is not None:
            pixels.add(seen.maps, seen.masks)
        kept = [i for i, item in enumerate(truth) if item.boxes]
        if not kept:
            return Findings(found_in_empty, pixels=pixels.counts)
        truth, seen = [truth[i] for i in kept], Seen(seen.maps[kept], seen.probabilities[kept])
        found = match_maps(seen.maps, self.corloc.thresholds, truth, size, components=self.settings.components)
        at_chosen = Overlaps(*(part[:, self._column].clone() for part in (found.value, found.which, found.boxes)))
        contours = None
        if self.full:
            one, many = (
                match_maps(seen.maps, BENCHMARK_THRESHOLDS, truth, size, components=components).value
                for components in ("largest contour", "all contours")
            )
            contours = (one, many)
        peaks = seen.maps.double().flatten(1).amax(dim=1)
        return Findings(found_in_empty, found.value, at_chosen, contours, seen.probabilities, peaks, pixels.counts)

    def update(self, truth: Sequence[FrameTruth], size: Size, found: Findings, *, also: Sequence[int] = ()) -> None:
        """Count what ``measure`` returned for these frames; ``also`` are other tags of their video."""
        if found.in_empty is not None:
            self.presence.add(found.in_empty, torch.zeros_like(found.in_empty))
        if found.pixels is not None:
            self.pxap.counts += found.pixels
        if found.values is None or found.at_chosen is None or found.probabilities is None or found.peaks is None:
            return
        truth = [item for item in truth if item.boxes]
        self.corloc.add(truth, found.values)
        if self.full:
            rank = rank_of_class(found.probabilities, torch.tensor([item.label for item in truth]), also=also)
            self.at_chosen.add(found.at_chosen.value[:, None], rank)
            if found.contours is not None:
                self.contour.add(found.contours[0], rank)
                self.contours.add(found.contours[1])
            best = found.values.amax(dim=1)
            classes = self._describe_classes(found.probabilities, found.peaks)
            self._add_frames(truth, size, found.at_chosen.boxes, best, classes)

    def update_boxes(self, truth: Sequence[FrameTruth], size: Size, box: Tensor) -> None:
        """Score the boxes of N annotated frames.

        Args:
            truth: the frames.
            size: their (height, width).
            box: ``[N, 4]`` in original pixels, NaN where nothing was found; ``[4]`` is the same box for all.
        """
        boxes = box.expand(len(truth), 4)[:, None]
        empty = torch.tensor([not item.boxes for item in truth])
        if self.full:
            self.presence.add(~boxes[empty, 0, 0].isnan(), ~empty[empty])
        truth, boxes = [item for item in truth if item.boxes], boxes[~empty]
        if not truth:
            return
        found = match_boxes(boxes, truth, size, components=self.settings.components)
        self.corloc.add(truth, found.value)
        if self.full:
            on_grid = match_boxes(boxes, truth, size, components="largest contour").value
            self.contour.add(on_grid)
            self.contours.add(on_grid)
            unknown = dict.fromkeys(("pred_class", "class_score", "map_peak"), [None] * len(truth))
            self._add_frames(truth, size, found.boxes[:, self._column], found.value.amax(dim=1), unknown)

    def rows(self) -> list[pa.RecordBatch]:
        """Return the rows so far."""
        return self._rows

    def _add_frames(
        self,
        truth: Sequence[FrameTruth],
        size: Size,
        boxes: Tensor,
        best: Tensor,
        classes: Mapping[str, Sequence[object]],
    ) -> None:
        """Count the metrics at the chosen threshold (``boxes`` ``[N, 4]``), and keep a row for each frame."""
        true_boxes = visible_boxes(truth, size)
        overlap, which = (part[:, 0] for part in best_overlap(boxes[:, None], true_boxes))
        best_truth = true_boxes[torch.arange(len(truth)), which]
        present = ~boxes[:, 0].isnan()
        self.presence.add(present, torch.ones_like(present))
        self.stability.add([item.video_id for item in truth], boxes, best_truth, overlap)
        areas = (true_boxes[..., 2:] - true_boxes[..., :2]).prod(dim=2).nan_to_num(0.0).amax(dim=1)
        columns: dict[str, Sequence[object]] = {
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
            "best_iou": best.tolist(),
            **classes,
        }
        self._rows.append(pa.RecordBatch.from_pydict({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA))

    def _describe_classes(self, probabilities: Tensor, peaks: Tensor) -> dict[str, list[object]]:
        score, label = probabilities.double().max(dim=1)
        return {
            "pred_class": [self.settings.class_names[i] for i in label.tolist()],
            "class_score": score.tolist(),
            "map_peak": peaks.tolist(),
        }


def write_frame_rows(path: Path, methods: Sequence[MethodEvaluator]) -> None:
    """Write ``per_frame.parquet``: a row for each method and annotated frame with a true box."""
    table = pa.Table.from_batches([batch for method in methods for batch in method.rows()], schema=SCHEMA)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
