"""Boxes of the largest components at all thresholds of a map, from its hills: numpy only.

What `components_sweep.py` computes, where numba is not installed. From any pixel, going on to the highest neighbour
leads to a summit; the pixels that lead to one summit are its hill. What a threshold leaves of a hill holds together,
as the way up never leaves it, so a component of any threshold is a set of whole hills, cut off at the threshold, and
hills join where
the threshold falls below the highest pass between them. A map of 50 000 pixels has some dozens of hills if it is
smooth, thousands if it is noise. In the order in which they join, the hills of a component stand side by side at every
threshold: sizes and boxes are sums, minima and maxima over stretches of a table of thresholds and hills.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Ranks = NDArray[np.int16]


def largest_of_maps(maps: NDArray[np.floating], scale: float, least: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the box of the largest 8-connected component of every map at a level: see ``components_single.py``."""
    kept = maps * maps.dtype.type(scale) >= least.astype(maps.dtype)[:, None, None]
    return largest_components(kept.astype(np.int16), 1)[:, 0]


def largest_components(rank: Ranks, layers: int) -> NDArray[np.float64]:
    """Return the box of the largest component of every layer.

    Args:
        rank: ``[N, H, W]``; pixel p belongs to the layers 0 .. rank(p) - 1 of its map (they are nested).
        layers: layers per map, L.

    Returns:
        ``[N, L, 4]``, NaN where a layer is empty.
    """
    boxes = np.full((len(rank), layers, 4), np.nan)
    for one, found in zip(rank, boxes, strict=True):
        peak = int(one.max())
        if peak > 0:
            plane = np.pad(one, 1)  # so that no pixel lacks a neighbour
            hill, height = find_hills(plane)
            place, gap = line_up(height, find_passes(plane, hill))
            found[:peak] = boxes_of_stretches(plane, place[hill], gap)
    return boxes


def find_hills(plane: Ranks) -> tuple[NDArray[np.int32], Ints]:
    """Return the hill of every pixel of a plane (flat; of no meaning where the rank is 0), and the rank of each summit.

    The highest neighbour is that of the highest rank; of equals the last one in reading order.
    """
    rank, pitch, bits = plane.ravel(), plane.shape[1], plane.size.bit_length()
    key = np.left_shift(rank, bits, dtype=np.int32 if bits <= 16 else np.int64)
    key += np.arange(len(key), dtype=key.dtype)
    key *= rank > 0
    near = np.maximum(key[:-2], key[1:-1])
    np.maximum(near, key[2:], out=near)
    row, near = near, np.maximum(near[: -2 * pitch], near[pitch:-pitch])
    np.maximum(near, row[2 * pitch :], out=near)
    steps = np.zeros(len(key), np.int64)
    steps[pitch + 1 : -pitch - 1] = near & (1 << bits) - 1
    summits = pitch + 1 + np.flatnonzero((near == key[pitch + 1 : -pitch - 1]) & (near > 0))
    number = np.zeros(len(key), np.int32)
    number[summits] = np.arange(len(summits))
    return number[follow(steps)], rank[summits].astype(np.int64)


def follow(steps: Ints) -> Ints:
    """Return where each place ends that goes on to ``steps[place]`` until it stays."""
    while not np.array_equal(steps, further := steps[steps]):
        steps = further
    return steps


def find_passes(plane: Ranks, hill: NDArray[np.int32]) -> Ints:
    """List the pairs of hills that touch, each with the rank of the highest pass: ``[3, P]``, highest first."""
    rank, pitch = plane.ravel(), plane.shape[1]
    count = int(hill.max()) + 1
    found = []
    for step in (1, pitch - 1, pitch, pitch + 1):
        here = np.flatnonzero(hill[step:] != hill[:-step])
        low = np.minimum(rank[here], rank[here + step])
        here, low = here[low > 0], low[low > 0]
        one, other = hill[here].astype(np.int64), hill[here + step]
        found.append((np.minimum(one, other) * count + np.maximum(one, other) << 16) + low)
    keys = np.sort(np.concatenate(found))
    keys = keys[np.diff(keys >> 16, append=-1) != 0]  # the highest of each pair comes last
    keys = keys[np.argsort(-(keys & 0xFFFF), kind="stable")]
    return np.stack([(keys >> 16) // count, (keys >> 16) % count, keys & 0xFFFF])


def line_up(height: Ints, passes: Ints) -> tuple[Ints, Ints]:
    """Order the hills such that those which are joined at any layer stand side by side.

    Returns:
        The place of each hill, and ``[K]``: the hills at places k - 1 and k are joined below this rank (0: never). A
        hill that is joined to a higher one from its summit on, such as one of several on a plateau, shares its place.
    """
    count, tops = len(height), height.tolist()
    root, into, gap = list(range(count)), list(range(count)), [0] * count
    line = [[hill] for hill in range(count)]
    for a, b, low in zip(*passes.tolist(), strict=True):
        while root[a] != a:
            root[a] = a = root[root[a]]
        while root[b] != b:
            root[b] = b = root[root[b]]
        if a != b:
            if tops[a] < tops[b]:
                a, b = b, a
            root[b] = a
            if low == tops[b]:
                into[b] = a
            else:
                gap[b] = low
                line[a] += line[b]
            line[b] = []
    order = np.array(list(chain.from_iterable(line)))
    place = np.empty(count, np.int64)
    place[order] = np.arange(len(order))
    return place[follow(np.array(into))], np.array(gap)[order]


def boxes_of_stretches(plane: Ranks, place: Ints, gap: Ints) -> Ints:
    """Return the box of the largest component of each layer ``[peak, 4]``, from the place of each pixel (flat)."""
    (height, width), peak, count = plane.shape, int(plane.max()), len(gap)
    cell = (peak - plane.ravel().astype(np.int64)) * count + place  # a row of the table per layer, the highest first
    position = np.arange(cell.size, dtype=np.int32)
    column = np.tile(np.arange(width, dtype=np.int32), height)

    def table(of: NDArray[Any], pick: np.ufunc, start: int) -> NDArray[Any]:
        cells = np.full((peak + 1, count), start, np.int32)
        pick.at(cells.reshape(-1), cell, of)
        return np.asarray(pick.accumulate(cells, axis=0, out=cells).reshape(-1))

    # A component is a stretch of one row of the table, in which no gap is wider than the row's layer is low.
    area = np.bincount(cell, minlength=(peak + 1) * count).reshape(-1, count).cumsum(axis=0).ravel()
    layer = np.arange(peak - 1, -2, -1)
    apart = gap <= layer[:, None]
    apart[:, 0] = True
    begins, stretches = np.flatnonzero(apart), apart.sum(axis=1)
    pixels = np.add.reduceat(area, begins)
    most = np.maximum.reduceat(pixels, np.cumsum(stretches) - stretches)
    won = np.flatnonzero((pixels == np.repeat(most, stretches))[:-1])  # the last row, of rank 0, is none
    row, ends = begins[won] // count, np.stack([begins[won], begins[won + 1]], axis=1).ravel()
    left, first = (np.minimum.reduceat(table(of, np.minimum, cell.size), ends)[::2] for of in (column, position))
    right, last = (np.maximum.reduceat(table(of, np.maximum, -1), ends)[::2] for of in (column, position))
    boxes = np.stack([left - 1, first // width - 1, right, last // width], axis=1)
    order = np.lexsort((first, -row))
    return np.asarray(boxes[order[np.diff(row[order], prepend=peak) != 0]])
