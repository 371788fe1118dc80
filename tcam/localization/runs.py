"""Boxes of the largest components at all thresholds of a map, from runs: numpy and scipy only.

What `sweep.py` computes, where numba is not installed. A component is built from runs, unbroken stretches of kept
pixels in a row. A run of a threshold starts where the map rises through it and ends where the map falls through it, so
the runs of *all* thresholds are listed straight from differences of neighbours, without a mask per threshold: a smooth
map has a few hundred runs where it has 50 000 pixels. Runs that touch the row below are joined by one call that finds
connected components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.int64]
Ranks = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Runs:
    """Unbroken stretches of kept pixels, ordered by layer, row and column; a layer is one map at one cut.

    ``start`` and ``stop`` are half-open positions in a plane of all layers under one another, with one empty column
    behind every row and one empty row behind every layer, so that nothing touches across a border.
    """

    layer: Ints
    start: Ints
    stop: Ints
    pitch: int


def largest_components(rank: Ranks, cuts: int) -> NDArray[np.float64]:
    """Give the box of the largest component of every layer.

    Args:
        rank: ``[N, H, W]``; pixel p belongs to the layers 0 .. rank(p) - 1 of its map (they are nested).
        cuts: layers per map, L.

    Returns:
        ``[N, L, 4]``, NaN where a layer is empty.
    """
    number, height, _ = rank.shape
    boxes = np.full((number * cuts, 4), np.nan)
    runs = find_runs(rank, cuts)
    if len(runs.start):
        component = join_runs(runs)
        kept = winners(runs, component)[component]
        layer, start, stop = runs.layer[kept], runs.start[kept], runs.stop[kept]
        first = np.flatnonzero(np.r_[True, layer[1:] != layer[:-1]])
        last = np.r_[first[1:], len(layer)] - 1
        row, column = start // runs.pitch % (height + 1), start % runs.pitch
        ends = column + stop - start
        found = [np.minimum.reduceat(column, first), row[first], np.maximum.reduceat(ends, first), row[last] + 1]
        boxes[layer[first]] = np.stack(found, axis=1)
    return boxes.reshape(number, cuts, 4)


def find_runs(rank: Ranks, cuts: int) -> Runs:
    """List the runs of all layers from the rises and falls of the rank along each row."""
    number, height, width = rank.shape
    pitch = width + 1
    plane = np.zeros(number * height * pitch + 1, np.int16)
    plane[1:].reshape(number, height, pitch)[:, :, :-1] = rank
    before, here = plane[:-1], plane[1:]  # the empty column makes row ends fall to 0 and row starts rise from 0
    rises, falls = np.flatnonzero(here > before), np.flatnonzero(here < before)
    start_layer, start = unfold(rises, before[rises], here[rises])
    stop_layer, stop = unfold(falls, here[falls], before[falls])
    map_pixels, layer_pixels = height * pitch, (height + 1) * pitch

    def place(layer: Ints, position: Ints) -> tuple[Ints, Ints]:
        """Sort by layer (positions already ascend) and move each run to its layer's part of the plane."""
        layer = layer + position // map_pixels * cuts
        order = np.argsort(layer.astype(np.uint16) if number * cuts < 65536 else layer, kind="stable")
        layer, position = layer[order], position[order]
        return layer, position % map_pixels + layer * layer_pixels

    # A fall at the last pixel of a map lies in its own empty column, so it never counts for the next map.
    layer, start = place(start_layer, start)
    _, stop = place(stop_layer, stop)
    return Runs(layer, start, stop, pitch)


def unfold(positions: Ints, low: Ints | Ranks, high: Ints | Ranks) -> tuple[Ints, Ints]:
    """Repeat every position for the layers low .. high - 1; gives (layer, position)."""
    counts = (high - low).astype(np.int64)
    offset = np.cumsum(counts) - counts
    layer = np.arange(counts.sum()) - np.repeat(offset - low, counts)
    return layer, np.repeat(positions, counts)


def join_runs(runs: Runs) -> Ints:
    """Number the 8-connected components; gives the component of each run, numbered by their first run."""
    low = np.searchsorted(runs.stop, runs.start + runs.pitch - 1, side="right")
    high = np.searchsorted(runs.start, runs.stop + runs.pitch + 1, side="left")
    below, _ = unfold(low, low, np.maximum(low, high))
    rows = np.concatenate(([0], np.cumsum(np.maximum(high - low, 0))))
    total = len(low)
    graph = csr_array((np.ones(len(below)), below, rows), shape=(total, total))
    component = connected_components(graph, directed=False)[1]
    return np.asarray(component, dtype=np.int64)


def winners(runs: Runs, component: Ints) -> NDArray[np.bool_]:
    """Mark the component with the most pixels in every layer; of equals, the one whose first run comes first."""
    pixels = np.bincount(component, weights=runs.stop - runs.start)
    _, first_run = np.unique(component, return_index=True)
    layer = runs.layer[first_run]
    order = np.lexsort((first_run, -pixels, layer))
    leading = np.r_[True, layer[order][1:] != layer[order][:-1]]
    marks = np.zeros(len(pixels), dtype=np.bool_)
    marks[order[leading]] = True
    return marks
