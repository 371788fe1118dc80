"""The fast form of ``affinity``: the Gaussian affinity of pixels as a product ``W = F F^T`` with few columns.

The Gaussian of colour needs few bins and has a low rank per channel (``colour_bins``); that of position is a sum of few
products of one-dimensional eigenvectors (``gaussian_terms``). So pixels are summed into a colour grid, the grid is
multiplied by small dense matrices, and the pixels are read back: no pairs, no loop over pixels. As ``F F^T`` the result
stays symmetric and positive, which the gradient of ``S^T W S`` needs.

This form uses torch only and filters whole batches on accelerators. On a CPU it is faster to visit only the occupied
cells, in loops compiled by numba: ``colour_cells`` computes the same numbers (decision 0003).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from tcam.supervision.crf.colour_bins import ColourBins, adaptive_bins, even_bins, histogram
from tcam.supervision.crf.colour_cells import filter_cells
from tcam.supervision.crf.gaussian_terms import Positions, position_terms

_SUM_OVER: Final = 12_544
"""Number of pixels that is enough for the kernel's sum: 112 x 112."""

_SUM_BINS, _SUM_TOLERANCE = 52, 0.07
"""Of the kernel's sum: bins of a channel where sigma_rgb is 15, and the error that ranks may add to ``W S``."""

_Form = Callable[[Tensor, Tensor, ColourBins, Positions | None, Tensor | None], Tensor]


def filter_through_grid(
    maps: Tensor, frames: Tensor, *, sigma_rgb: float, sigma_xy: float | None, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Return ``W S`` of every map, and ``S^T W S``.

    Args:
        maps: float32 ``[B, K, H, W]``, or ``[B, K, T, H, W]`` without positions.
        frames: ``[B, 3, ...]`` of these sizes, RGB in 0..255, of any dtype; rounded down.
        sigma_rgb: reach in colour levels.
        sigma_xy: reach in pixels, or None.
        tolerance: relative L2 error to aim at, 0.01 to 0.1.

    Returns:
        As ``maps``; and float32 ``[B, K]``.
    """
    # Measured on real frames: the error falls with the bins to the power of 1.3, and position blurs some of it.
    widest = (60 if sigma_xy is None else 54) * (0.04 / tolerance) ** 0.75 * 15 / sigma_rgb
    levels = _to_levels(frames)
    each = _on_cpu(frames.device)
    bins = adaptive_bins(histogram(levels), widest, sigma_rgb=sigma_rgb, tolerance=tolerance, each=each)
    positions = None
    if sigma_xy is not None:
        positions = position_terms((frames.shape[2], frames.shape[3]), sigma_xy, tolerance, frames.device)
    maps = maps.contiguous()
    filtered = torch.empty_like(maps)
    energies = _form(frames.device)(maps, levels, bins, positions, filtered)
    return filtered, energies


def sum_through_grid(frames: Tensor, *, sigma_rgb: float, sigma_xy: float | None) -> Tensor:
    """Return ``1^T W 1`` of every image, float32 ``[B]``, from a regular grid of its pixels where they are very many.

    Bins of equal width, the same for all images, are good enough here and need no histogram.
    """
    count = frames[0, 0].numel()
    step = max(1, math.isqrt(count // _SUM_OVER))
    levels = _to_levels(frames[..., ::step, ::step])
    positions = None
    if sigma_xy is not None:
        positions = position_terms((levels.shape[2], levels.shape[3]), sigma_xy / step, _SUM_TOLERANCE, frames.device)
    bins = even_bins(round(_SUM_BINS * 15 / sigma_rgb), sigma_rgb, _SUM_TOLERANCE, len(frames), frames.device)
    ones = torch.ones((len(frames), 1, *levels.shape[2:]), device=frames.device)
    energies = _form(frames.device)(ones, levels, bins, positions, None)
    return energies[:, 0] * (count / levels[0, 0].numel()) ** 2


def filter_batch(
    maps: Tensor, levels: Tensor, bins: ColourBins, positions: Positions | None, filtered: Tensor | None
) -> Tensor:
    """Filter maps ``[B, K, ...]`` by the levels ``[B, 3, ...]`` of their pixels, into ``filtered`` if it is given.

    All images have grids of one size (``bins.sides``).

    Returns:
        The energies, ``[B, K]``.
    """
    images, count = maps.shape[:2]
    side = bins.sides[0]
    red, green, blue = bins.factors[:, :, :side].unbind(1)
    rows, weights = maps.flatten(2), None
    if positions is not None:
        weights = (positions[0][:, :, None] * positions[1][:, None]).flatten(1)
        rows = (rows[:, :, None] * weights).flatten(1, 2)
    cells = bins.places.gather(2, levels.flatten(2).long()).sum(dim=1)[:, None].expand(-1, rows.shape[1], -1)
    grid = rows.new_zeros(*rows.shape[:2], side**3).scatter_add_(2, cells, rows)
    low = _multiply(grid.view(*rows.shape[:2], side, side, side), red.mT, green.mT, blue)
    if filtered is not None:
        grid = _multiply(low, red, green, blue.mT)
        read = grid.flatten(2).gather(2, cells)
        if weights is not None:
            read = (read.view(images, count, -1, read.shape[2]) * weights).sum(dim=2)
        filtered.copy_(read.view(filtered.shape))
    squares: Tensor = torch.linalg.vector_norm(low.view(images, count, -1), dim=2)
    return squares.square_()


def _multiply(grid: Tensor, red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    """Multiply a grid ``[B, R, x, y, z]`` by ``[B, x', x]``, ``[B, y', y]`` and, from the right, ``[B, z, z']``."""
    images, rows, x, y, z = grid.shape
    new_x, new_y = red.shape[1], green.shape[1]
    grid = torch.bmm(red.repeat_interleave(rows, dim=0), grid.view(images * rows, x, y * z))
    grid = torch.bmm(green.repeat_interleave(rows * new_x, dim=0), grid.view(images * rows * new_x, y, z))
    return torch.bmm(grid.view(images, rows * new_x * new_y, z), blue).view(images, rows, new_x, new_y, -1)


def _form(device: torch.device) -> _Form:
    """Return the function that filters maps on a device."""
    return filter_cells if _on_cpu(device) else filter_batch


def _on_cpu(device: torch.device) -> bool:
    return device.type == "cpu"


def _to_levels(frames: Tensor) -> Tensor:
    return frames if frames.dtype == torch.uint8 else frames.clamp(0, 255).to(torch.uint8)
