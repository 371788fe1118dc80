"""Foreground map -> threshold -> largest component -> box, for one threshold or for many in one sweep.

The rule is that of the WSOL benchmark (Choe et al., CVPR 2020; TCAM, arXiv:2208.14542) with half-open boxes: a map m in
0..1 becomes levels ``g = floor(255 m)``, pixels with ``g > floor(threshold * max g)`` are kept, the 8-connected
component with the most pixels wins, and its bounding box is the answer. Of equally large components the one that is met
first in reading order (row by row from the top, left to right) wins.

How it is done. A component is built from runs, unbroken stretches of kept pixels in a row. A run of a threshold starts
where the map rises through it and ends where the map falls through it, so the runs of *all* thresholds are listed
straight from differences of neighbours, without a mask per threshold: a smooth map has a few hundred runs where it has
50 000 pixels. Runs that touch the row below are joined by one call that finds connected components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from tcam.types import Box, FrameGeometry

_SLACK = 1e-3
"""How far a map may leave 0..1 by rounding (half precision) before it is taken for something else, such as logits."""

Ints = NDArray[np.int64]
Ranks = NDArray[np.int16]


def extract_box(map: Tensor, threshold: float, geometry: FrameGeometry) -> Box | None:  # noqa: A002 (the field's word)
    """Give the box of the largest component of a thresholded map, in original pixels.

    Args:
        map: ``[H, W]``, in 0..1.
        threshold: 0..1, relative to the map's maximum; a pixel must lie above it.
        geometry: how the original frame became the H x W that the map covers.

    Returns:
        The box, or None where nothing lies above the threshold (an all-zero map, or a threshold of 1).

    Raises:
        ValueError: another shape, a map of another size than the geometry's input, values that are not numbers in
            0..1, or a threshold outside 0..1.
    """
    if map.ndim != 2:
        raise ValueError(f"map must be [H, W], got {list(map.shape)}")
    return extract_boxes(map[None], threshold, [geometry])[0]


def extract_boxes(maps: Tensor, threshold: float, geometries: Sequence[FrameGeometry]) -> list[Box | None]:
    """Do ``extract_box`` for N maps ``[N, H, W]`` at once; the maps are made into levels on their own device."""
    if maps.ndim != 3 or len(maps) != len(geometries):
        raise ValueError(f"maps must be [N, H, W] with N = {len(geometries)} geometries, got {list(maps.shape)}")
    for geometry in geometries:
        if geometry.input_size != tuple(maps.shape[1:]):
            raise ValueError(f"maps must cover the geometry's input {geometry.input_size}, got {list(maps.shape)}")
    if not len(maps):
        return []
    levels = _quantise(maps)
    cuts = _cuts(levels, np.array([float(threshold)]))
    found = _largest_components((levels > cuts[:, :, None]).astype(np.int16), 1)[:, 0]
    return [
        None if np.isnan(row[0]) else geometry.to_original(Box(*row.tolist()))
        for row, geometry in zip(found, geometries, strict=True)
    ]


def boxes_at_thresholds(map: Tensor, thresholds: Tensor | Sequence[float]) -> Tensor:  # noqa: A002 (the field's word)
    """Give the box of the largest component of one map at many thresholds, in pixels of the map.

    Args:
        map: ``[H, W]``, in 0..1.
        thresholds: ``[L]``, each 0..1, in any order. Use float64: ``floor(threshold * max g)`` of a threshold such as
            0.7 may fall one level lower where it was rounded to float32.

    Returns:
        float64 ``[L, 4]`` on the CPU, half-open; NaN where nothing lies above the threshold. Thresholds that cut the
        map at the same level (there are at most 256 levels) share one computation.

    Raises:
        ValueError: another shape, values that are not numbers in 0..1, or a threshold outside 0..1.
    """
    wanted = torch.as_tensor(thresholds, dtype=torch.float64).cpu().numpy()
    if map.ndim != 2 or wanted.ndim != 1:
        raise ValueError(f"map must be [H, W] and thresholds [L], got {list(map.shape)} and {list(wanted.shape)}")
    levels = _quantise(map[None])
    cuts, position = np.unique(_cuts(levels, wanted)[0], return_inverse=True)
    # How many of the distinct cuts lie below each of the 256 levels: pixel p is kept at cut c exactly when c < rank(p).
    rank = np.searchsorted(cuts, np.arange(256), side="left").astype(np.int16)
    return torch.from_numpy(_largest_components(rank[levels], len(cuts))[0][position])


def _quantise(maps: Tensor) -> NDArray[np.uint8]:
    """Make maps ``[N, H, W]`` into levels 0..255 on their device and bring them to the CPU."""
    if not maps.is_floating_point() or maps.numel() == 0:
        raise ValueError(f"a map must hold floats, at least one, got {maps.dtype} {list(maps.shape)}")
    values = maps.detach()
    values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    low, high = (float(bound) for bound in torch.stack(torch.aminmax(values)).cpu())
    if not (low >= -_SLACK and high <= 1 + _SLACK):  # also where one is NaN
        raise ValueError(f"a map must hold numbers in 0..1, got {low:g} to {high:g}")
    levels: NDArray[np.uint8] = (values.clamp(0, 1) * 255).to(torch.uint8).cpu().numpy()
    return levels


def _cuts(levels: NDArray[np.uint8], thresholds: NDArray[np.float64]) -> Ints:
    """Give the level ``[N, L]`` that a pixel must exceed, for every map and threshold."""
    if not np.all((thresholds >= 0) & (thresholds <= 1)):
        raise ValueError(f"thresholds must lie in 0..1, got {thresholds.min()} to {thresholds.max()}")
    peak = levels.reshape(len(levels), -1).max(axis=1).astype(np.float64)
    cuts: Ints = np.floor(thresholds[None] * peak[:, None]).astype(np.int64)
    return cuts


@dataclass(frozen=True, slots=True)
class _Runs:
    """Unbroken stretches of kept pixels, ordered by layer, row and column; a layer is one map at one cut.

    ``start`` and ``stop`` are half-open positions in a plane of all layers under one another, with one empty column
    behind every row and one empty row behind every layer, so that nothing touches across a border.
    """

    layer: Ints
    start: Ints
    stop: Ints
    pitch: int


def _largest_components(rank: Ranks, cuts: int) -> NDArray[np.float64]:
    """Give the box of the largest component of every layer.

    Args:
        rank: ``[N, H, W]``; pixel p belongs to the layers 0 .. rank(p) - 1 of its map (they are nested).
        cuts: layers per map, L.

    Returns:
        ``[N, L, 4]``, NaN where a layer is empty.
    """
    number, height, _ = rank.shape
    boxes = np.full((number * cuts, 4), np.nan)
    runs = _find_runs(rank, cuts)
    if len(runs.start):
        component = _join_runs(runs)
        kept = _winners(runs, component)[component]
        layer, start, stop = runs.layer[kept], runs.start[kept], runs.stop[kept]
        first = np.flatnonzero(np.r_[True, layer[1:] != layer[:-1]])
        last = np.r_[first[1:], len(layer)] - 1
        row, column = start // runs.pitch % (height + 1), start % runs.pitch
        ends = column + stop - start
        found = [np.minimum.reduceat(column, first), row[first], np.maximum.reduceat(ends, first), row[last] + 1]
        boxes[layer[first]] = np.stack(found, axis=1)
    return boxes.reshape(number, cuts, 4)


def _find_runs(rank: Ranks, cuts: int) -> _Runs:
    """List the runs of all layers from the rises and falls of the rank along each row."""
    number, height, width = rank.shape
    pitch = width + 1
    plane = np.zeros(number * height * pitch + 1, np.int16)
    plane[1:].reshape(number, height, pitch)[:, :, :-1] = rank
    before, here = plane[:-1], plane[1:]  # the empty column makes row ends fall to 0 and row starts rise from 0
    rises, falls = np.flatnonzero(here > before), np.flatnonzero(here < before)
    start_layer, start = _unfold(rises, before[rises], here[rises])
    stop_layer, stop = _unfold(falls, here[falls], before[falls])
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
    return _Runs(layer, start, stop, pitch)


def _unfold(positions: Ints, low: Ints | Ranks, high: Ints | Ranks) -> tuple[Ints, Ints]:
    """Repeat every position for the layers low .. high - 1; gives (layer, position)."""
    counts = (high - low).astype(np.int64)
    offset = np.cumsum(counts) - counts
    layer = np.arange(counts.sum()) - np.repeat(offset - low, counts)
    return layer, np.repeat(positions, counts)


def _join_runs(runs: _Runs) -> Ints:
    """Number the 8-connected components; gives the component of each run, numbered by their first run."""
    low = np.searchsorted(runs.stop, runs.start + runs.pitch - 1, side="right")
    high = np.searchsorted(runs.start, runs.stop + runs.pitch + 1, side="left")
    below, _ = _unfold(low, low, np.maximum(low, high))
    rows = np.concatenate(([0], np.cumsum(np.maximum(high - low, 0))))
    total = len(low)
    graph = csr_array((np.ones(len(below)), below, rows), shape=(total, total))
    component = connected_components(graph, directed=False)[1]
    return np.asarray(component, dtype=np.int64)


def _winners(runs: _Runs, component: Ints) -> NDArray[np.bool_]:
    """Mark the component with the most pixels in every layer; of equals, the one whose first run comes first."""
    pixels = np.bincount(component, weights=runs.stop - runs.start)
    _, first_run = np.unique(component, return_index=True)
    layer = runs.layer[first_run]
    order = np.lexsort((first_run, -pixels, layer))
    leading = np.r_[True, layer[order][1:] != layer[order][:-1]]
    marks = np.zeros(len(pixels), dtype=np.bool_)
    marks[order[leading]] = True
    return marks
