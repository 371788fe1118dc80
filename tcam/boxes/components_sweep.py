"""The box of the largest component at every threshold of a map, in one pass over its pixels.

The sweep lowers the threshold from the highest level to the lowest and adds pixels as they come above it. A new pixel
joins the components of its kept neighbours (union-find), so components only ever grow, and nothing is labelled twice
however many thresholds there are. Compiled by numba at the first call (a few seconds, then cached on disk).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcam.compiled import compiled

Ints = NDArray[np.int32]
Places = NDArray[np.uint32]
"""Positions in a plane with a border: see ``row_shift``."""

State = tuple[NDArray[np.uint8], Places, Ints, Places, Places]
"""See ``plane``."""


def for_each(work: Callable[..., None], *arguments: NDArray[Any]) -> None:
    """Call ``work`` for each map, on as many threads as torch uses; compiled code runs in parallel."""
    torch = sys.modules.get("torch")
    threads = 1 if torch is None else min(torch.get_num_threads(), len(arguments[0]))
    if threads <= 1:
        deque(map(work, *arguments), maxlen=0)
        return
    with ThreadPoolExecutor(threads) as pool:
        deque(pool.map(work, *arguments), maxlen=0)


@compiled
def row_shift(width: int) -> int:
    """Return s such that rows of a plane with a one-pixel border start at multiples of 2^s: shifts give x and y."""
    shift = 1
    while 1 << shift < width + 2:
        shift += 1
    return shift


@compiled
def by_rank(rank: NDArray[np.int16], layers: int) -> tuple[Places, NDArray[np.int64]]:
    """Sort the pixels of a map ``[H, W]`` by rank, equal ones in reading order.

    Returns:
        The positions ``[H * W]`` in a plane with a border of one pixel (see ``row_shift``), and where each rank begins
        in them, ``[L + 2]``.
    """
    height, width = rank.shape
    shift = row_shift(width)
    begins = np.zeros(layers + 2, np.int64)
    for y in range(height):
        for x in range(width):
            begins[rank[y, x] + 1] += 1
    for layer in range(layers + 1):
        begins[layer + 1] += begins[layer]
    place = begins.copy()
    order = np.empty(height * width, np.uint32)
    for y in range(height):
        for x in range(width):
            order[place[rank[y, x]]] = ((y + 1) << shift) + x + 1
            place[rank[y, x]] += 1
    return order, begins


def joins(*, corners_touch: bool) -> NDArray[np.int8]:
    """Return one neighbour of each component around a pixel, for every set of kept ones: ``[512, 4]``, padded by -1.

    The pixels of a 3 x 3 square are numbered row by row; the one in the middle, 4, is not kept yet.
    """
    table = np.full((512, 4), -1, np.int8)
    ring = (1, 2, 5, 8, 7, 6, 3, 0)  # clockwise from the one above: every other one shares a side with the middle
    for kept in range(512):
        group = [turn if kept >> place & 1 else -1 for turn, place in enumerate(ring)]
        for _ in range(8):  # enough for the smallest number to go around
            for a in range(8):
                for b in (a + 1) % 8, *(((a + 2) % 8,) if corners_touch and a % 2 == 0 else ()):
                    if group[a] >= 0 and group[b] >= 0:
                        group[a] = group[b] = min(group[a], group[b])
        sides = {group[turn]: turn for turn in range(7, -1, -1) if corners_touch or turn % 2 == 0}
        found = sorted(turn for number, turn in sides.items() if number >= 0)
        table[kept, : len(found)] = [ring[turn] for turn in found]
    return table


EIGHT: Final = joins(corners_touch=True)
_ONE: Final = np.ones(512, np.int8)


@compiled
def steps(sides: NDArray[np.int8], shift: int) -> Ints:
    """Convert the numbers of ``joins`` to offsets in a plane, from the pixel above on the left; -1 stays."""
    offsets = np.empty(sides.shape, np.int32)
    for kept in range(len(sides)):  # loops compile in a fraction of a second, np.where takes five
        for i in range(sides.shape[1]):
            side = sides[kept, i]
            offsets[kept, i] = -1 if side < 0 else (side // 3 << shift) + side % 3
    return offsets


@compiled
def plane(shape: tuple[int, int]) -> State:
    """Allocate the union-find of a map of (height, width), with a border of one pixel that is never kept.

    Returns:
        For each pixel, whether it, the one left of it (bit 0) and the one right of it (bit 2) are kept; the parent of
        each pixel; facts about the component of a root; space for the list of roots and for ``add_layer``'s bridges.
    """
    size = (shape[0] + 2) << row_shift(shape[1])
    root, alive, bridges = np.empty(size, np.uint32), np.empty(size, np.uint32), np.empty((size, 2), np.uint32)
    return np.zeros(size, np.uint8), root, np.empty((size, 6), np.int32), alive, bridges


@compiled
def add_layer(state: State, count: int, pixels: Places, shift: int, sides: Ints, gained: NDArray[np.int8]) -> int:
    """Keep further pixels: join them to the components that they touch, and join those components to each other.

    ``about[root]`` is left, top, right, bottom (inclusive, in the plane with its border), the first pixel in reading
    order, and the sum of ``gained`` over the pixels, by their neighbours at that time. ``alive`` lists the ``count``
    roots; the function returns their new number. Nearly every pixel touches one component; the few that touch several,
    the bridges, wait until all pixels are added. The first loop contains no calls, which would triple its time, and
    its indices are unsigned, because numba checks signed ones for negative values.
    """
    on, root, about, alive, bridges = state
    pitch = np.uint32(1 << shift)
    waiting = 0
    for pixel in pixels:
        above, left = np.uint32(pixel - pitch), np.uint32(pixel - 1)
        kept = on[above] | on[left + 1] << 3 | on[pixel + pitch] << 6
        on[left] |= 4
        on[left + 1] |= 2
        on[left + 2] |= 1
        x, y = pixel & (pitch - 1), pixel >> shift
        if sides[kept, 0] < 0:
            root[pixel], alive[count] = pixel, pixel
            count += 1
            one = about[pixel]
            one[0], one[1], one[2], one[3], one[4], one[5] = x, y, x, y, pixel, gained[kept]
            continue
        here = root[np.uint32(above - 1 + sides[kept, 0])]
        while root[here] != here:
            root[here] = root[root[here]]
            here = root[here]
        root[pixel] = here
        one = about[here]
        one[0], one[1], one[4] = min(one[0], x), min(one[1], y), min(one[4], pixel)
        one[2], one[3] = max(one[2], x), max(one[3], y)
        one[5] += gained[kept]
        if sides[kept, 1] >= 0:
            bridges[waiting, 0], bridges[waiting, 1] = pixel, kept
            waiting += 1
    for pixel, kept in bridges[:waiting]:
        for side in sides[kept, 1:]:
            if side >= 0:
                join(root, about, pixel, pixel - pitch - 1 + side)
    still = 0
    for i in range(count):
        if root[alive[i]] == alive[i]:
            alive[still] = alive[i]
            still += 1
    return still


@compiled
def join(root: Places, about: Ints, a: int, b: int) -> None:
    """Join the components of two pixels."""
    while root[a] != a:
        root[a] = root[root[a]]
        a = root[a]
    while root[b] != b:
        root[b] = root[root[b]]
        b = root[b]
    if a != b:
        root[b] = a
        one, other = about[a], about[b]
        one[0], one[1], one[4] = min(one[0], other[0]), min(one[1], other[1]), min(one[4], other[4])
        one[2], one[3] = max(one[2], other[2]), max(one[3], other[3])
        one[5] += other[5]


@compiled
def _sweep(pixels: tuple[Places, NDArray[np.int64]], shape: tuple[int, int], boxes: NDArray[np.float64]) -> None:
    """Write the box of the largest component of each layer ``[L, 4]`` of a map."""
    order, begins = pixels
    shift, state = row_shift(shape[1]), plane(shape)
    about, alive, sides = state[2], state[3], steps(EIGHT, shift)
    count = 0
    for layer in range(len(boxes) - 1, -1, -1):
        added = order[begins[layer + 1] : begins[layer + 2]]
        count = add_layer(state, count, added, shift, sides, _ONE)
        best = -1
        for one in alive[:count]:
            if (
                best < 0
                or about[one, 5] > about[best, 5]
                or (about[one, 5] == about[best, 5] and about[one, 4] < about[best, 4])
            ):
                best = one
        if best >= 0:
            boxes[layer, 0], boxes[layer, 1] = about[best, 0] - 1, about[best, 1] - 1
            boxes[layer, 2], boxes[layer, 3] = about[best, 2], about[best, 3]


def largest_components(rank: NDArray[np.int16], layers: int) -> NDArray[np.float64]:
    """Return the box of the largest 8-connected component of every layer.

    Args:
        rank: ``[N, H, W]``; pixel p belongs to the layers 0 .. rank(p) - 1 of its map (they are nested).
        layers: layers per map, L.

    Returns:
        ``[N, L, 4]``, half-open x0, y0, x1, y1 in pixels; NaN where a layer is empty. Of equally large components the
        one whose first pixel comes first in reading order.
    """
    number, height, width = rank.shape
    boxes = np.full((number, layers, 4), np.nan)
    for_each(lambda one, found: _sweep(by_rank(one, layers), (height, width), found), rank, boxes)
    return boxes
