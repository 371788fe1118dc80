"""Boxes of contours at all thresholds of a map in one pass, equal to those of OpenCV's ``findContours``.

The WSOL benchmark (Choe et al., CVPR 2020) takes the contour with the largest ``contourArea``, or all of them, holes
included (MaxBoxAccV2). Both follow from components: the outer contour of an 8-connected component runs through the
centres of its outermost pixels, so it encloses one unit for each 2 x 2 square of the component with its holes filled,
and half a unit for three pixels of such a square; a hole is a 4-connected component of the background that does not
reach the edge, and its contour runs one pixel outside it. Of equally large contours OpenCV lists the one whose first
pixel comes last in reading order first. Compiled by numba, as `components_sweep.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tcam.boxes.components_sweep import (
    EIGHT,
    Places,
    add_layer,
    by_rank,
    for_each,
    joins,
    plane,
    row_shift,
    steps,
)
from tcam.compiled import compiled

Ranks = NDArray[np.int16]
Boxes = NDArray[np.float64]


def _gained() -> NDArray[np.int8]:
    """Return, for each set of kept neighbours, how many 2 x 2 squares a pixel fills to three or four pixels."""
    squares = (0, 1, 3), (1, 2, 5), (3, 6, 7), (5, 7, 8)  # without the middle of the 3 x 3 (see ``joins``)
    return np.array([sum(sum(kept >> p & 1 for p in three) >= 2 for three in squares) for kept in range(512)], np.int8)


_FOUR, _GAINED = joins(corners_touch=False), _gained()


def largest_contours(rank: Ranks, layers: int) -> Boxes:
    """Return the box of the contour with the largest area of every layer.

    Args:
        rank: ``[N, H, W]``; pixel p belongs to the layers 0 .. rank(p) - 1 of its map (they are nested).
        layers: layers per map, L.

    Returns:
        ``[N, L, 4]`` as the benchmark writes them: x0, y0, x1, y1 with x1 = min(x0 + width, W - 1), y1 alike; NaN where
        a layer is empty.
    """
    boxes = np.full((len(rank), layers, 4), np.nan)
    for_each(lambda one, found: _largest(_by_filled_rank(one, layers), one.shape, found), rank, boxes)
    return boxes


def best_contours(rank: Ranks, layers: int, truth: Boxes) -> Boxes:
    """Return the box that overlaps a true box most, among all contours of a layer, holes included.

    Args:
        rank: as for ``largest_contours``.
        layers: layers per map, L.
        truth: ``[N, G, 4]`` in pixels of the map, compared with inclusive-pixel IoU; NaN where a map has fewer than G.

    Returns:
        ``[N, L, 4]`` as for ``largest_contours``; if no contour touches a true box, the box of any contour.
    """
    boxes = np.full((len(rank), layers, 4), np.nan)

    def search(one: Ranks, true_boxes: Boxes, found: Boxes) -> None:
        wanted = np.ascontiguousarray(true_boxes[~np.isnan(true_boxes).any(axis=1)])
        pixels = by_rank(one, layers)
        overlap = np.full(layers, -1.0)
        _best(pixels, one.shape, wanted, overlap, found, False)
        _best(pixels, one.shape, wanted, overlap, found, True)

    for_each(search, rank, truth, boxes)
    return boxes


@compiled
def _by_filled_rank(rank: Ranks, layers: int) -> tuple[Places, NDArray[np.int64]]:
    """Sort the pixels of a map like ``by_rank``, after the holes of every layer were filled.

    A filled pixel has the lowest rank that any 4-connected path to it from the edge must cross. A priority flood from
    the edge finds these ranks, and visits the pixels in their order.
    """
    height, width = rank.shape
    shift = row_shift(width)
    pitch = np.uint32(1 << shift)
    ahead = np.zeros((height + 2) << shift, np.uint16)  # 1 + the rank of pixels that no way has reached
    for y in range(height):
        for x in range(width):
            ahead[((y + 1) << shift) + x + 1] = rank[y, x] + 1
    head, below = np.zeros(layers + 2, np.uint32), np.empty(len(ahead), np.uint32)  # a stack of pixels for each rank
    for y in range(height):
        for x in range(0, width, 1 if y in (0, height - 1) else max(width - 1, 1)):
            pixel = np.uint32(((y + 1) << shift) + x + 1)
            below[pixel], head[ahead[pixel]], ahead[pixel] = head[ahead[pixel]], pixel, 0
    order, begins = np.empty(height * width, np.uint32), np.empty(layers + 2, np.int64)
    count = 0
    for level in range(1, layers + 2):
        begins[level - 1] = count
        while head[level] > 0:
            pixel = head[level]
            head[level] = below[pixel]
            order[count] = pixel
            count += 1
            left, up = np.uint32(pixel - 1), np.uint32(pixel - pitch)
            for near in (left, np.uint32(left + 2), up, np.uint32(pixel + pitch)):
                if ahead[near] > 0:
                    crossed = max(ahead[near], level)
                    below[near], head[crossed], ahead[near] = head[crossed], near, 0
    begins[layers + 1] = count
    return order, begins


@compiled
def _largest(pixels: tuple[Places, NDArray[np.int64]], shape: tuple[int, int], boxes: Boxes) -> None:
    """Write the box of the largest contour of each layer ``[L, 4]`` of a map without holes."""
    order, begins = pixels
    shift, state = row_shift(shape[1]), plane(shape)
    about, alive, sides = state[2], state[3], steps(EIGHT, shift)
    count = 0
    for layer in range(len(boxes) - 1, -1, -1):
        added = order[begins[layer + 1] : begins[layer + 2]]
        count = add_layer(state, count, added, shift, sides, _GAINED)
        best = -1
        for one in alive[:count]:
            if (
                best < 0
                or about[one, 5] > about[best, 5]
                or (about[one, 5] == about[best, 5] and about[one, 4] > about[best, 4])
            ):
                best = one
        if best >= 0:
            boxes[layer, 0], boxes[layer, 1] = about[best, 0] - 1, about[best, 1] - 1
            boxes[layer, 2] = min(about[best, 2], shape[1] - 1)
            boxes[layer, 3] = min(about[best, 3], shape[0] - 1)


@compiled
def _overlap(x0: int, y0: int, x1: int, y1: int, truth: Boxes) -> float:
    """Return the highest inclusive-pixel IoU of a box with the true boxes ``[G, 4]``."""
    area = (x1 - x0 + 1) * (y1 - y0 + 1)
    best = 0.0
    for true in truth:
        common = max(min(x1, true[2]) - max(x0, true[0]) + 1, 0) * max(min(y1, true[3]) - max(y0, true[1]) + 1, 0)
        if common > 0:
            best = max(best, common / (area + (true[2] - true[0] + 1) * (true[3] - true[1] + 1) - common))
    return best


@compiled
def _best(
    pixels: tuple[Places, NDArray[np.int64]],
    shape: tuple[int, int],
    truth: Boxes,
    overlap: NDArray[np.float64],
    boxes: Boxes,
    holes: bool,
) -> None:
    """Search the outer contours (or those of holes) of all layers for boxes with more overlap than ``overlap`` ``[L]``.

    Components grow as the layers descend, the background between them as the layers ascend.
    """
    order, begins = pixels
    shift, layers = row_shift(shape[1]), len(boxes)
    state = plane(shape)
    about, alive = state[2], state[3]
    sides = steps(_FOUR if holes else EIGHT, shift)
    count = 0
    for turn in range(layers):
        layer = turn if holes else layers - 1 - turn
        first = layer if holes else layer + 1
        count = add_layer(state, count, order[begins[first] : begins[first + 1]], shift, sides, _GAINED)
        for one in alive[:count]:
            left, top, right, bottom = about[one, 0], about[one, 1], about[one, 2], about[one, 3]
            if holes:
                if left == 1 or top == 1 or right == shape[1] or bottom == shape[0]:
                    continue  # it reaches the edge: not a hole
                left, top, right, bottom = left - 1, top - 1, right + 1, bottom + 1
            right, bottom = min(right, shape[1] - 1), min(bottom, shape[0] - 1)
            found = _overlap(left - 1, top - 1, right, bottom, truth)
            if found > overlap[layer]:
                overlap[layer] = found
                boxes[layer, 0], boxes[layer, 1], boxes[layer, 2], boxes[layer, 3] = left - 1, top - 1, right, bottom
