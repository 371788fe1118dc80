"""Boxes of the largest components at all thresholds of a map in one pass: union-find over the pixels, highest first.

A pixel that is added joins the components of its kept neighbours, so a component only ever grows, and the largest one
at a threshold is the largest of those that grew so far: nothing is labelled twice, however many thresholds there are.
Compiled by numba at the first call (some seconds, then kept on disk); where numba is missing, `extract.py` takes
`runs.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

_Function = TypeVar("_Function", bound=Callable[..., Any])
Ints = NDArray[np.int32]


def compiled(function: _Function) -> _Function:
    """Compile with the result kept on disk, or in memory where no folder can be written."""
    try:
        return cast("_Function", njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba found no place for its cache
        return cast("_Function", njit(nogil=True)(function))


def for_each(work: Callable[..., None], *arguments: NDArray[Any]) -> None:
    """Call ``work`` for each of several maps, on as many threads as torch uses: compiled code runs side by side."""
    threads = min(torch.get_num_threads(), len(arguments[0]))
    if threads <= 1:
        deque(map(work, *arguments), maxlen=0)
        return
    with ThreadPoolExecutor(threads) as pool:
        deque(pool.map(work, *arguments), maxlen=0)


@compiled
def row_shift(width: int) -> int:
    """Give s such that rows of a plane with a border of one pixel start at multiples of 2^s: no division finds x, y."""
    shift = 1
    while 1 << shift < width + 2:
        shift += 1
    return shift


@compiled
def by_rank(rank: NDArray[np.int16], layers: int) -> tuple[Ints, NDArray[np.int64]]:
    """Sort the pixels of a map ``[H, W]`` by rank, reading order among equals.

    Gives the positions ``[H * W]`` in a plane with a border of one pixel (see ``row_shift``), and ``[L + 2]`` where
    each rank begins.
    """
    height, width = rank.shape
    shift = row_shift(width)
    begins = np.zeros(layers + 2, np.int64)
    for y in range(height):
        for x in range(width):
            begins[rank[y, x] + 1] += 1
    begins = np.cumsum(begins)
    place = begins.copy()
    order = np.empty(height * width, np.int32)
    for y in range(height):
        for x in range(width):
            order[place[rank[y, x]]] = ((y + 1) << shift) + x + 1
            place[rank[y, x]] += 1
    return order, begins


@compiled
def find(root: Ints, pixel: int) -> int:
    """Give the root of the component of a pixel, and shorten the way to it."""
    while root[pixel] != pixel:
        root[pixel] = root[root[pixel]]
        pixel = root[pixel]
    return pixel


@compiled
def _sweep(pixels: tuple[Ints, NDArray[np.int64]], shape: tuple[int, int], boxes: NDArray[np.float64]) -> None:
    """Add the pixels of one map layer by layer, highest rank first, and write the box of each layer ``[L, 4]``."""
    order, begins = pixels
    shift = row_shift(shape[1])
    size, pitch = (shape[0] + 2) << shift, 1 << shift
    root = np.full(size, -1, np.int32)  # the border is never kept, so no pixel has to be tested for the edge
    area = np.empty(size, np.int32)
    first = np.empty(size, np.int32)  # a component's first pixel in reading order, so its row is the top
    last = np.empty(size, np.int32)
    left = np.empty(size, np.int32)
    right = np.empty(size, np.int32)
    neighbours = np.array([-pitch - 1, -pitch, -pitch + 1, -1, 1, pitch - 1, pitch, pitch + 1])
    best = -1
    for layer in range(len(boxes) - 1, -1, -1):
        for pixel in order[begins[layer + 1] : begins[layer + 2]]:
            here = pixel
            root[here], area[here], first[here], last[here] = here, 1, here, here
            left[here] = right[here] = here & (pitch - 1)
            for step in neighbours:
                if root[pixel + step] < 0:
                    continue
                other = find(root, pixel + step)
                if other == here:
                    continue
                if area[other] > area[here]:
                    here, other = other, here
                root[other] = here
                area[here] += area[other]
                first[here] = min(first[here], first[other])
                last[here] = max(last[here], last[other])
                left[here] = min(left[here], left[other])
                right[here] = max(right[here], right[other])
            if best < 0 or area[here] > area[best] or (area[here] == area[best] and first[here] < first[best]):
                best = here
        if best >= 0:
            boxes[layer, 0], boxes[layer, 1] = left[best] - 1, (first[best] >> shift) - 1
            boxes[layer, 2], boxes[layer, 3] = right[best], last[best] >> shift


def largest_components(rank: NDArray[np.int16], layers: int) -> NDArray[np.float64]:
    """Give the box of the largest 8-connected component of every layer.

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
