"""The boxes of the WSOL benchmark: contours on a grid of 224 x 224 (Choe et al., CVPR 2020; TCAM, arXiv:2208.14542).

Results of papers that evaluate with its code depend on these conventions, which differ from ours (`extract.py`). It
takes the contour with the largest area (or all contours, holes included) instead of the component with most pixels.
Boxes end at ``min(x + width, 223)``, and are ``0, 0, 0, 0`` if nothing lies above the threshold. True boxes are scaled
to the grid and truncated to whole numbers. Overlap is inclusive-pixel IoU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tcam.boxes.boxes import scale_boxes
from tcam.boxes.contours import best_contours, largest_contours
from tcam.boxes.extract import at_thresholds
from tcam.types import Size

GRID: Final[Size] = (224, 224)
"""(height, width) to which maps and true boxes are scaled."""


def largest_contour_boxes(maps: Tensor, thresholds: Tensor | Sequence[float]) -> Tensor:
    """Return the box of the contour with the largest area at many thresholds.

    Args:
        maps: ``[N, H, W]``, in 0..1; another size than the grid's is resized (bilinear).
        thresholds: ``[L]``, float64, each 0..1.

    Returns:
        float64 ``[N, L, 4]`` on the CPU, in pixels of the grid.

    Raises:
        ValueError: another shape, values that are not numbers in 0..1, or a threshold outside 0..1.
    """
    return at_thresholds(_on_grid(maps), thresholds, largest_contours).nan_to_num(0.0)


def best_contour_boxes(maps: Tensor, thresholds: Tensor | Sequence[float], truth: Tensor) -> Tensor:
    """Return, among the boxes of all contours, the one that overlaps a true box most, at many thresholds.

    Args:
        maps: as for ``largest_contour_boxes``.
        thresholds: ``[L]``, float64, each 0..1.
        truth: ``[N, G, 4]`` on the grid (``boxes_on_grid``), NaN where a frame has fewer than G.

    Returns:
        float64 ``[N, L, 4]``; result and errors as for ``largest_contour_boxes``.
    """
    found = at_thresholds(
        _on_grid(maps), thresholds, lambda rank, layers: best_contours(rank, layers, truth.double().numpy())
    )
    return found.nan_to_num(0.0)


def boxes_on_grid(boxes: Tensor, size: Size) -> Tensor:
    """Scale boxes ``[..., 4]`` of a frame of ``size`` to the grid and truncate them to whole numbers; NaN stays NaN.

    Raises:
        ValueError: a last axis that does not hold 4 coordinates, or an empty size.
    """
    height, width = size
    scale_boxes(boxes, size, GRID)  # checks both
    # x * 224 / W, in this order, as the benchmark computes it: x * (224 / W) may fall just below a whole number.
    sides = boxes.new_tensor([width, height, width, height], dtype=torch.float64)
    grid = boxes.new_tensor([GRID[1], GRID[0], GRID[1], GRID[0]], dtype=torch.float64)
    return (boxes.double() * grid / sides).trunc()


def _on_grid(maps: Tensor) -> Tensor:
    if maps.ndim != 3 or tuple(maps.shape[1:]) == GRID:
        return maps
    return functional.interpolate(maps[:, None].float(), size=GRID, mode="bilinear", align_corners=False)[:, 0]
