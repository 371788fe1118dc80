"""The WSOL benchmark's evaluation, straightforwardly: one threshold and one box after the other, contours by OpenCV."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="opencv-python-headless (a development dependency) is not installed")

Corners = tuple[int, int, int, int]


def contour_boxes(levels: np.ndarray, cut: float, *, every: bool) -> list[Corners]:
    """The boxes of one binarised map: of the contour with the largest area, or of every contour."""
    height, width = levels.shape
    found = cv2.findContours((levels > cut).astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not found:
        return [(0, 0, 0, 0)]
    boxes = []
    for contour in found if every else [max(found, key=cv2.contourArea)]:
        x, y, w, h = cv2.boundingRect(contour)
        boxes.append((x, y, min(x + w, width - 1), min(y + h, height - 1)))
    return boxes


def pixel_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Both ends belong to the box."""
    wide = min(a[2], b[2]) - max(a[0], b[0]) + 1
    high = min(a[3], b[3]) - max(a[1], b[1]) + 1
    common = max(wide, 0) * max(high, 0)
    area = sum((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b))
    return common / (area - common)


def true_corners(box: Sequence[float], size: tuple[int, int]) -> Corners:
    """A true box on the grid of 224 x 224."""
    height, width = size
    x0, y0, x1, y1 = box
    return int(x0 * 224 / width), int(y0 * 224 / height), int(x1 * 224 / width), int(y1 * 224 / height)


def best_ious(levels: np.ndarray, thresholds: Sequence[float], truth: Sequence[Corners], *, every: bool) -> list[float]:
    """The highest overlap of any box with any true box, at every threshold."""
    found = []
    for threshold in thresholds:
        boxes = contour_boxes(levels, int(threshold * levels.max()), every=every)
        found.append(max(pixel_iou(box, true) for box in boxes for true in truth))
    return found
