"""PxAP, pixel average precision: how well a map separates the pixels of the object's mask from the rest.

Choe et al., CVPR 2020: the pixels of all frames together are thresholded, which gives precision and recall for every
threshold. PxAP is the area under their curve: the sum of precision times the gain in recall.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tcam.types import IGNORE


class PxApEvaluator:
    """Keeps histograms of map values inside and outside the masks; memory does not grow.

    Args:
        num_bins: the curve has the thresholds 0, 1 / num_bins, 2 / num_bins ... 1.

    Attributes:
        counts: int64 ``[2, num_bins + 1]``, number of background and foreground pixels by map value. The counts of
            several evaluators can be added.

    Raises:
        ValueError: no bins.
    """

    def __init__(self, num_bins: int = 1000) -> None:
        if num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {num_bins}")
        self._bins = num_bins
        self.counts = torch.zeros(2, num_bins + 1, dtype=torch.int64)

    def add(self, maps: Tensor, masks: Tensor) -> None:
        """Count the pixels of N frames.

        Args:
            maps: ``[N, H, W]``, in 0..1.
            masks: uint8 ``[N, H, W]``: 0 background, 1 foreground, ``IGNORE`` for pixels that do not count.

        Raises:
            ValueError: other shapes, map values outside 0..1, or other mask values.
        """
        if maps.ndim != 3 or maps.shape != masks.shape:
            raise ValueError(f"maps and masks must both be [N, H, W], got {list(maps.shape)}, {list(masks.shape)}")
        values, inside = maps.detach().double().cpu().flatten(), masks.cpu().flatten().long()
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError("maps must hold numbers in 0..1")
        if not bool(((inside == 0) | (inside == 1) | (inside == IGNORE)).all()):
            raise ValueError(f"masks must hold 0, 1 and {IGNORE} only")
        seen = inside != IGNORE
        place = (values[seen] * self._bins).long() + inside[seen] * (self._bins + 1)
        self.counts += torch.bincount(place, minlength=self.counts.numel()).view_as(self.counts)

    def compute(self) -> float:
        """Return PxAP in percent; NaN if no mask had a pixel."""
        background, foreground = self.counts.double().flip(1).cumsum(1)  # taken as foreground, highest values first
        if not foreground[-1]:
            return float("nan")
        precision = (foreground / (foreground + background)).nan_to_num(0.0)
        gained = torch.diff(foreground, prepend=foreground.new_zeros(1)) / foreground[-1]
        return float(100 * (precision * gained).sum())
