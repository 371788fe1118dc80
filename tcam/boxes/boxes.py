"""Boxes as tensors: overlap, scaling, clipping, and the boxes of baselines that do not depend on pixels.

Boxes are ``x0, y0, x1, y1`` on the last axis, half-open, as everywhere in tcam.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tcam.types import Box, Size

Numbers = NDArray[np.float64]


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of half-open boxes.

    Args:
        a: ``[..., 4]``.
        b: ``[..., 4]``; leading axes broadcast against those of ``a``.

    Returns:
        ``[...]`` in 0..1; 0 where both boxes are empty, NaN where a coordinate is NaN.

    Raises:
        ValueError: a last axis that does not hold 4 coordinates.
    """
    return _overlap(a, b, border=0)


def inclusive_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union as the WSOL benchmark counts it: the last row and column belong to the box.

    A side is ``x1 - x0 + 1`` (Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR
    2020), so the result differs from ``iou`` for the same numbers. Shapes and errors are those of ``iou``.
    """
    return _overlap(a, b, border=1)


def stack_boxes(boxes: Sequence[Sequence[Box]]) -> Tensor:
    """Stack the boxes of N frames: float64 ``[N, G, 4]``, NaN where a frame has fewer than G."""
    most = max((len(own) for own in boxes), default=0)
    stacked = torch.full((len(boxes), max(most, 1), 4), math.nan, dtype=torch.float64)
    for row, own in zip(stacked, boxes, strict=True):
        for place, box in enumerate(own):
            row[place] = torch.tensor(list(box), dtype=torch.float64)
    return stacked


def best_overlap(boxes: Tensor, truth: Tensor, *, inclusive: bool = False) -> tuple[Tensor, Tensor]:
    """Return the highest IoU of every box with the true boxes of its frame.

    Args:
        boxes: ``[N, L, 4]``, NaN where nothing was found.
        truth: ``[N, G, 4]``, NaN where a frame has fewer than G.
        inclusive: count pixels as ``inclusive_iou`` does.

    Returns:
        float64 ``[N, L]`` in 0..1, 0 where there is no box; int64 ``[N, L]``, the index of that true box (the first of
        equals).

    Raises:
        ValueError: other shapes.
    """
    if boxes.ndim != 3 or truth.ndim != 3 or len(boxes) != len(truth):
        raise ValueError(f"expected boxes [N, L, 4] and truth [N, G, 4], got {list(boxes.shape)}, {list(truth.shape)}")
    measure = inclusive_iou if inclusive else iou
    best, which = measure(boxes[:, None], truth[:, :, None]).nan_to_num_(0.0).max(dim=1)
    return best, which


def scale_boxes(boxes: Tensor, from_size: Size, to_size: Size) -> Tensor:
    """Scale boxes from one image size to another.

    Args:
        boxes: ``[..., 4]``, NaN stays NaN.
        from_size: (height, width) of the image that the boxes refer to.
        to_size: (height, width) of the image that the result refers to.

    Returns:
        ``[..., 4]`` of the same type (integers become floats), not rounded and not clipped.

    Raises:
        ValueError: a last axis that does not hold 4 coordinates, or an empty size.
    """
    _check_boxes(boxes, "boxes")
    _check_size(from_size, "from_size")
    _check_size(to_size, "to_size")
    scale_y, scale_x = to_size[0] / from_size[0], to_size[1] / from_size[1]
    values = boxes if boxes.is_floating_point() else boxes.double()
    return values * values.new_tensor([scale_x, scale_y, scale_x, scale_y])


def clip_boxes(boxes: Tensor, size: Size) -> Tensor:
    """Clip boxes to the frame; a box outside becomes empty (no width or no height), NaN stays NaN.

    Args:
        boxes: ``[..., 4]``.
        size: (height, width) of the frame.

    Raises:
        ValueError: a last axis that does not hold 4 coordinates, or an empty size.
    """
    _check_boxes(boxes, "boxes")
    _check_size(size, "size")
    x, y = boxes[..., 0::2].clamp(0, size[1]), boxes[..., 1::2].clamp(0, size[0])
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


def centre_box(size: Size, side_fraction: float) -> Box:
    """Return the box in the centre of the frame whose sides are a fraction of the frame's sides.

    The baseline "centre box (50 %)" has half the height and half the width: a quarter of the area.

    Raises:
        ValueError: an empty size, or a fraction outside 0..1 (0 excluded).
    """
    _check_size(size, "size")
    if not 0 < side_fraction <= 1:
        raise ValueError(f"side_fraction must be above 0 and at most 1, got {side_fraction}")
    height, width = size
    dx, dy = width * (1 - side_fraction) / 2, height * (1 - side_fraction) / 2
    return Box(dx, dy, width - dx, height - dy)


def full_frame_box(size: Size) -> Box:
    """Return the box of the whole frame, ``0, 0, W, H``.

    Raises:
        ValueError: an empty size.
    """
    return centre_box(size, 1.0)


def _overlap(a: Tensor, b: Tensor, *, border: int) -> Tensor:
    _check_boxes(a, "a")
    _check_boxes(b, "b")
    # In numpy, coordinates first: at the few thousand numbers of a map, torch's cost per operation would be most of it.
    one, other = (np.ascontiguousarray(np.moveaxis(some.double().cpu().numpy(), -1, 0)) for some in (a, b))
    common = _area(np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:]), border)
    union = _area(one[:2], one[2:], border) + _area(other[:2], other[2:], border) - common
    return torch.from_numpy(np.divide(common, union, out=np.zeros_like(union), where=union != 0)).to(a.device)


def _area(first: Numbers, last: Numbers, border: int) -> Numbers:
    width, height = np.maximum(last - first + border, 0)
    return np.asarray(width * height)


def _check_boxes(boxes: Tensor, name: str) -> None:
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise ValueError(f"{name} must be [..., 4], got {list(boxes.shape)}")


def _check_size(size: Size, name: str) -> None:
    if min(size) <= 0:
        raise ValueError(f"{name} must be a (height, width) above zero, got {size}")
