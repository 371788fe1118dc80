"""Turn a foreground map into a box: threshold the map, keep the largest component, return its bounding box.

The rule is that of the WSOL benchmark (Choe et al., CVPR 2020; TCAM, arXiv:2208.14542) with half-open boxes. A map m in
0..1 becomes levels ``g = floor(255 m)``. Pixels with ``g > floor(threshold * max g)`` are kept. The 8-connected
component with the most pixels wins; of equally large ones, the one whose first pixel comes first in reading order (row
by row from the top, left to right).

One threshold takes one pass over the runs of kept pixels (`components_single.py`). Many thresholds share one sweep over
the pixels, from the highest level down (`components_sweep.py`). Both are compiled by numba and run on the CPU; maps on
an accelerator become levels (one byte per pixel) there, and are copied to the CPU once per call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tcam.boxes.components_single import largest_of_maps
from tcam.boxes.components_sweep import largest_components
from tcam.types import Box, FrameGeometry

if TYPE_CHECKING:
    from torch import Tensor

_SLACK = 1e-3
"""Tolerance of values outside 0..1, for rounding in half precision; a map beyond it is refused (it may hold logits)."""

Ints = NDArray[np.int64]
Sweep = Callable[[NDArray[np.int16], int], NDArray[np.float64]]
"""A search in all layers of maps: ranks ``[N, H, W]`` and the number of layers L -> boxes ``[N, L, 4]``."""


def extract_box(
    map: Tensor | NDArray[np.floating],  # noqa: A002 (the field's word)
    threshold: float,
    geometry: FrameGeometry,
) -> Box | None:
    """Return the box of the largest component of a thresholded map, in original pixels.

    Args:
        map: ``[H, W]``, in 0..1, an array or a tensor.
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


def extract_boxes(
    maps: Tensor | NDArray[np.floating], threshold: float, geometries: Sequence[FrameGeometry]
) -> list[Box | None]:
    """Return the box of each of N maps ``[N, H, W]``: ``extract_box`` for a batch, with the same errors.

    Maps on an accelerator become levels there and are copied to the CPU once.
    """
    if maps.ndim != 3 or len(maps) != len(geometries):
        raise ValueError(f"maps must be [N, H, W] with N = {len(geometries)} geometries, got {list(maps.shape)}")
    for geometry in geometries:
        if geometry.input_size != tuple(maps.shape[1:]):
            raise ValueError(f"maps must cover the geometry's input {geometry.input_size}, got {list(maps.shape)}")
    if not len(maps):
        return []
    values, scale = _scaled(maps)
    peaks = np.floor(values.max(axis=(1, 2)) * values.dtype.type(scale)).clip(0, 255)
    least = 1 + _cuts(peaks, np.array([float(threshold)]))[:, 0].astype(np.float64)
    found = largest_of_maps(values, scale, least)
    return [
        None if np.isnan(row[0]) else geometry.to_original(Box(*row.tolist()))
        for row, geometry in zip(found, geometries, strict=True)
    ]


def boxes_at_thresholds(maps: Tensor, thresholds: Tensor | Sequence[float]) -> Tensor:
    """Return the box of the largest component of maps at many thresholds, in pixels of the map.

    Args:
        maps: ``[H, W]`` or ``[N, H, W]``, in 0..1.
        thresholds: ``[L]``, each 0..1, in any order. Use float64: ``floor(threshold * max g)`` of a threshold such as
            0.7 may fall one level lower where it was rounded to float32.

    Returns:
        float64 ``[L, 4]`` or ``[N, L, 4]`` on the CPU, half-open; NaN where nothing lies above the threshold.

    Raises:
        ValueError: another shape, values that are not numbers in 0..1, or a threshold outside 0..1.
    """
    if maps.ndim == 2:
        return boxes_at_thresholds(maps[None], thresholds)[0]
    return at_thresholds(maps, thresholds, largest_components)


def at_thresholds(maps: Tensor, thresholds: Tensor | Sequence[float], sweep: Sweep) -> Tensor:
    """Return the box that ``sweep`` finds in maps ``[N, H, W]`` at each threshold ``[L]``.

    Thresholds that cut a map at the same level (there are at most 256 levels) share one layer of the sweep.

    Returns:
        float64 ``[N, L, 4]`` on the CPU, NaN where nothing lies above the threshold.

    Raises:
        ValueError: another shape, values that are not numbers in 0..1, or a threshold outside 0..1.
    """
    import torch  # not at the top: boxes of arrays do without

    wanted = torch.as_tensor(thresholds, dtype=torch.float64).cpu().numpy()
    if maps.ndim != 3 or wanted.ndim != 1:
        raise ValueError(
            f"expected maps [H, W] or [N, H, W] and thresholds [L], got {list(maps.shape)}, {list(wanted.shape)}"
        )
    if not len(maps) or not len(wanted):
        return torch.full((len(maps), len(wanted), 4), math.nan, dtype=torch.float64)
    levels = _quantise(maps)
    cuts = _cuts(levels.max(axis=(1, 2)), wanted)
    own = np.arange(len(maps))[:, None]
    is_cut = np.zeros((len(maps), 256), np.int16)
    is_cut[own, cuts] = 1
    # How many of a map's distinct cuts lie below each level: pixel p is kept at cut c exactly when rank(c) < rank(p).
    below = np.cumsum(is_cut, axis=1, dtype=np.int16) - is_cut
    rank = np.empty(levels.shape, np.int16)
    for ranks, one, into in zip(below, levels, rank, strict=True):
        np.take(ranks, one, out=into, mode="clip")  # any other mode looks at each level first
    layers = int(is_cut.sum(axis=1).max())
    found = sweep(rank, layers).reshape(-1, 4)
    return torch.from_numpy(found[own * layers + below[own, cuts]])


def _scaled(maps: Tensor | NDArray[np.floating]) -> tuple[NDArray[np.floating], float]:
    """Return maps ``[N, H, W]`` as an array, and the factor that turns its values into levels.

    Maps on a CPU are returned as they are; from accelerators only levels are copied, a quarter of the size.
    """
    if not isinstance(maps, np.ndarray) and maps.device.type != "cpu":
        return _quantise(maps).astype(np.float32), 1.0
    return _as_floats(maps), 255.0


def _quantise(maps: Tensor | NDArray[np.floating]) -> NDArray[np.uint8]:
    """Convert maps ``[N, H, W]`` to levels 0..255, tensors on their own device, and return them on the CPU."""
    if isinstance(maps, np.ndarray) or maps.device.type == "cpu":
        return np.asarray((_as_floats(maps).clip(0, 1) * 255).astype(np.uint8))
    import torch

    _check_floats(maps, maps.is_floating_point() and maps.numel() > 0)
    own = maps.detach()
    own = own.float() if own.dtype in (torch.float16, torch.bfloat16) else own
    low, high = torch.aminmax(own)
    _check_range(float(low), float(high))
    levels: NDArray[np.uint8] = own.clamp(0, 1).mul_(255).to(torch.uint8).cpu().numpy()
    return levels


def _as_floats(maps: Tensor | NDArray[np.floating]) -> NDArray[np.floating]:
    """Return an array or a CPU's tensor as an array of float32 or float64."""
    if not isinstance(maps, np.ndarray):
        _check_floats(maps, maps.is_floating_point() and maps.numel() > 0)
        own = maps.detach()
        maps = (own.float() if own.itemsize < 4 else own).numpy()
    _check_floats(maps, maps.dtype.kind == "f" and maps.size > 0)
    values = maps if maps.dtype in (np.float32, np.float64) else maps.astype("f4" if maps.itemsize <= 4 else "f8")
    _check_range(float(values.min()), float(values.max()))
    return values


def _check_floats(maps: Tensor | NDArray[np.floating], fits: bool) -> None:
    if not fits:
        raise ValueError(f"a map must hold floats, at least one, got {maps.dtype} {list(maps.shape)}")


def _check_range(low: float, high: float) -> None:
    if not (low >= -_SLACK and high <= 1 + _SLACK):  # also where one is NaN
        raise ValueError(f"a map must hold numbers in 0..1, got {low:g} to {high:g}")


def _cuts(peaks: NDArray[np.generic], thresholds: NDArray[np.float64]) -> Ints:
    """Return the level ``[N, L]`` that a pixel must exceed, for maps of peak levels ``[N]`` and every threshold."""
    if not np.all((thresholds >= 0) & (thresholds <= 1)):
        raise ValueError(f"thresholds must lie in 0..1, got {thresholds.min()} to {thresholds.max()}")
    cuts: Ints = np.floor(thresholds[None] * peaks.astype(np.float64)[:, None]).astype(np.int64)
    return cuts
