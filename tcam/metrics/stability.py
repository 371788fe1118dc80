"""Temporal stability of boxes, and presence: whether there are boxes where there is an object.

Stability follows Zhang & Wang, "On the Stability of Video Detection and Tracking" (arXiv:1611.06467). It measures not
how well a box fits, but how its error changes from frame to frame. It needs true boxes but not every frame, so
annotations may have gaps. A constant error, such as a box that is always a little to the left, is perfectly stable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Stability:
    """Stability in percent, lower is steadier: means over videos with at least two annotated frames, NaN for none.

    Attributes:
        fragment: share of steps between annotated frames at which a correct box becomes wrong or a wrong one correct.
        centre: standard deviation of the centre's error, in widths and heights of the true box.
        scale_ratio: standard deviation of the errors of size (root of the area) and aspect ratio, relative to the true
            box.
    """

    fragment: float
    centre: float
    scale_ratio: float


class StabilityEvaluator:
    """Counts the stability of the annotated frames of videos, in order; keeps a few sums per video.

    Args:
        iou_threshold: IoU that a correct box must reach (for fragments only).
    """

    def __init__(self, *, iou_threshold: float = 0.5) -> None:
        self.iou_threshold = iou_threshold
        self._sums: dict[str, Tensor] = {}
        self._right: dict[str, list[int]] = {}  # frames, changes, whether the last was right

    def add(self, video_ids: Sequence[str], boxes: Tensor, truth: Tensor, overlap: Tensor) -> None:
        """Add N frames, those of a video in ascending order.

        Args:
            video_ids: the video of each frame.
            boxes: ``[N, 4]``, NaN where nothing was found.
            truth: ``[N, 4]``, the true box that each box overlaps most.
            overlap: ``[N]``, IoU of the two; 0 where nothing was found.

        Raises:
            ValueError: other shapes.
        """
        if boxes.shape != (len(video_ids), 4) or truth.shape != boxes.shape or overlap.shape != boxes.shape[:1]:
            raise ValueError(
                f"expected boxes and truth [{len(video_ids)}, 4] and overlap [{len(video_ids)}], "
                f"got {list(boxes.shape)}, {list(truth.shape)}, {list(overlap.shape)}"
            )
        errors = _misfit(boxes.double().cpu(), truth.double().cpu())
        for video, error, value in zip(video_ids, errors, overlap.tolist(), strict=True):
            right = int(value >= self.iou_threshold)
            frames, changes, before = self._right.get(video, [0, 0, right])
            self._right[video] = [frames + 1, changes + (right != before), right]
            if not bool(error.isnan().any()):
                sums = torch.stack([torch.ones_like(error), error, error.square()])
                self._sums[video] = self._sums[video] + sums if video in self._sums else sums

    def compute(self) -> Stability:
        """Return the means over the videos added so far."""
        deviations = [
            (sums[2] / sums[0] - (sums[1] / sums[0]).square()).clamp(min=0).sqrt()
            for sums in self._sums.values()
            if sums[0, 0] > 1
        ]
        x, y, scale, ratio = torch.stack(deviations).mean(dim=0).tolist() if deviations else [math.nan] * 4
        flips = [changes / (frames - 1) for frames, changes, _ in self._right.values() if frames > 1]
        fragment = sum(flips) / len(flips) if flips else math.nan
        return Stability(100 * fragment, 100 * (x + y), 100 * (scale + ratio))


def _misfit(boxes: Tensor, truth: Tensor) -> Tensor:
    """Return the error of centre x, centre y, root of area and aspect ratio ``[N, 4]`` against the true box."""
    own, true = boxes[:, 2:] - boxes[:, :2], truth[:, 2:] - truth[:, :2]
    centre = ((boxes[:, 2:] + boxes[:, :2]) - (truth[:, 2:] + truth[:, :2])) / 2 / true
    scale = (own.prod(dim=1) / true.prod(dim=1)).sqrt()
    ratio = (own[:, 0] / own[:, 1]) / (true[:, 0] / true[:, 1])
    return torch.cat([centre, scale[:, None], ratio[:, None]], dim=1)


class PresenceEvaluator:
    """Counts how often a box was found in frames with an object, and in frames known to hold none."""

    def __init__(self) -> None:
        self._counts = torch.zeros(2, 2, dtype=torch.int64)  # without and with an object; frames, boxes

    def add(self, found: Tensor, present: Tensor) -> None:
        """Add N frames: whether a box was found in each, and whether it holds an object (both bool ``[N]``).

        Raises:
            ValueError: other shapes.
        """
        if found.ndim != 1 or found.shape != present.shape:
            raise ValueError(f"found and present must both be [N], got {list(found.shape)}, {list(present.shape)}")
        place = present.long().cpu()
        self._counts[:, 0] += torch.bincount(place, minlength=2)
        self._counts[:, 1] += torch.bincount(place[found.cpu()], minlength=2)

    def compute(self) -> tuple[float, float]:
        """Return the share of frames with a box, among those with an object and those without one (false alarms).

        Both are in percent; NaN if there are no such frames.
        """
        false_alarms, found = (100 * self._counts[:, 1].double() / self._counts[:, 0]).tolist()
        return found, false_alarms
