"""Compare boxes with true boxes, by our rule or the WSOL benchmark's. All metrics are computed from these overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tcam.boxes.boxes import best_overlap, clip_boxes, stack_boxes
from tcam.boxes.extract import boxes_at_thresholds
from tcam.metrics.benchmark import GRID, best_contour_boxes, boxes_on_grid, largest_contour_boxes
from tcam.types import Components, FrameTruth, Size


@dataclass(frozen=True, slots=True)
class Overlaps:
    """The overlaps of N frames at L map thresholds.

    Attributes:
        value: float64 ``[N, L]``, the highest IoU with a true box of the frame; 0 where no box was found.
        which: int64 ``[N, L]``, the index of that true box.
        boxes: float64 ``[N, L, 4]``, the boxes found, in original pixels; NaN where none was.
    """

    value: Tensor
    which: Tensor
    boxes: Tensor


def visible_boxes(truth: Sequence[FrameTruth], size: Size) -> Tensor:
    """Return the true boxes of N frames, clipped to the frame (height, width): ``[N, G, 4]``, NaN for none.

    A box that lies wholly outside its frame is left out.
    """
    clipped = clip_boxes(stack_boxes([item.boxes for item in truth]), size)
    seen = (clipped[..., 2:] > clipped[..., :2]).all(dim=-1, keepdim=True)
    return torch.where(seen, clipped, torch.nan)


def match_maps(
    maps: Tensor,
    thresholds: Tensor | Sequence[float],
    truth: Sequence[FrameTruth],
    size: Size,
    *,
    components: Components = "largest",
) -> Overlaps:
    """Extract the boxes of maps at every threshold and compare them with the truth.

    Args:
        maps: ``[N, H, W]``, in 0..1, of frames of one size.
        thresholds: ``[L]``, float64.
        truth: the frames' true boxes, in original pixels.
        size: (height, width) of the original frames.
        components: ``largest`` is our rule: half-open boxes, plain IoU, truth clipped to the frame. The others are the
            benchmark's rule, on its grid (`benchmark.py`).

    Raises:
        ValueError: maps or thresholds of another shape, or not in 0..1.
    """
    if components == "largest":
        height, width = maps.shape[-2:]
        scale = torch.tensor([size[1] / width, size[0] / height] * 2, dtype=torch.float64)
        found = boxes_at_thresholds(maps, thresholds) * scale
        return Overlaps(*best_overlap(found, visible_boxes(truth, size)), found)
    true_boxes = boxes_on_grid(stack_boxes([item.boxes for item in truth]), size)
    if components == "largest contour":
        found = largest_contour_boxes(maps, thresholds)
    else:
        found = best_contour_boxes(maps, thresholds, true_boxes)
    return _on_the_grid(found, true_boxes, size)


def match_boxes(
    boxes: Tensor, truth: Sequence[FrameTruth], size: Size, *, components: Components = "largest"
) -> Overlaps:
    """Compare given boxes ``[N, L, 4]``, in original pixels, with the truth; everything else as for ``match_maps``."""
    if components == "largest":
        return Overlaps(*best_overlap(boxes, visible_boxes(truth, size)), boxes)
    ends = torch.tensor([GRID[1] - 1, GRID[0] - 1] * 2, dtype=torch.float64)
    true_boxes = boxes_on_grid(stack_boxes([item.boxes for item in truth]), size)
    return _on_the_grid(boxes_on_grid(boxes, size).minimum(ends), true_boxes, size)


def _on_the_grid(found: Tensor, true_boxes: Tensor, size: Size) -> Overlaps:
    value, which = best_overlap(found, true_boxes, inclusive=True)
    scale = torch.tensor([size[1] / GRID[1], size[0] / GRID[0]] * 2, dtype=torch.float64)
    nothing = (found == 0).all(dim=-1, keepdim=True)
    return Overlaps(value, which, torch.where(nothing, torch.nan, found * scale))
