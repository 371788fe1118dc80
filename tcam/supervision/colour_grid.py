"""The Gaussian affinity of pixels as a product ``W = F F^T`` of few columns: how ``affinity`` is fast.

Colour is a Gaussian of few bins and low rank per channel (``colour_bins``), position a sum of few products of
one-dimensional eigenvectors (``gaussian_terms``). So pixels are summed into a colour grid, the grid is taken through
small dense matrices, and read back: no pairs, no loop over pixels. Being ``F F^T`` it stays symmetric and positive,
which a gradient of ``S^T W S`` needs.

A row is one map times one position term. On a CPU rows lie in pairs, as complex numbers do (L = 2 lanes): adding or
reading a pair costs what one number costs. Measured and left out: channels-last rows (torch adds them one by one).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from tcam.supervision.colour_bins import adaptive_bins, cells_of_pixels, even_bins, histogram
from tcam.supervision.gaussian_terms import position_terms

_SUM_OVER: Final = 12_544
"""Pixels that are enough for the kernel's sum: 112 x 112."""

_SUM_BINS, _SUM_TOLERANCE = 52, 0.07
"""Of the kernel's sum: bins of a channel where sigma_rgb is 15, and the error that ranks may add to ``W S``."""


def filter_through_grid(
    maps: Tensor, frames: Tensor, *, sigma_rgb: float, sigma_xy: float | None, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Give ``W S`` of every map, and ``S^T W S``.

    Args:
        maps: float32 ``[B, K, H, W]``, or ``[B, K, T, H, W]`` without positions.
        frames: ``[B, 3, ...]`` of these sizes, RGB in 0..255, of any dtype; rounded down.
        sigma_rgb: reach in colour levels.
        sigma_xy: reach in pixels, or None.
        tolerance: relative L2 error to aim at, 0.01 to 0.1.

    Returns:
        float32 ``[B, K, P]``, P the pixels of an image; and float32 ``[B, K]``.
    """
    maps = maps.flatten(2)
    # Measured on real frames: the error falls with the bins to the power of 1.3, and position blurs some of it.
    bins = (60 if sigma_xy is None else 54) * (0.04 / tolerance) ** 0.75 * 15 / sigma_rgb
    filtered, energies, memory = maps.new_empty(maps.shape), maps.new_empty(maps.shape[:2]), maps.new_empty(0)
    if sigma_xy is None:
        together = _images_at_once(frames.device, pairs=False)
        for part, grid in _colour_grids(frames, bins, sigma_rgb, tolerance, lanes=1, together=together):
            rows = maps[part, None, ..., None]
            energies[part], memory = grid.filter(rows, memory, out=filtered[part, None, ..., None])
        return filtered, energies
    lanes, together = _lanes(frames.device), _images_at_once(frames.device, pairs=True)
    positions = position_terms((frames.shape[2], frames.shape[3]), sigma_xy, tolerance, lanes, frames.device)
    for part, grid in _colour_grids(frames, bins, sigma_rgb, tolerance, lanes=lanes, together=together):
        rows = _weigh(maps[part], positions)
        energies[part], memory = grid.filter(rows, memory, out=rows)
        total = torch.mul(rows[:, 0], positions[0], out=rows[:, 0])
        for i in range(1, len(positions)):
            total.addcmul_(rows[:, i], positions[i])
        first, *second = total.unbind(-1)
        torch.add(first, *second, out=filtered[part]) if second else filtered[part].copy_(first)
    return filtered, energies


def sum_through_grid(frames: Tensor, *, sigma_rgb: float, sigma_xy: float | None) -> Tensor:
    """Give ``1^T W 1`` of every image, float32 ``[B]``, from a regular grid of its pixels where they are very many.

    Bins of equal width, the same for all images, are good enough here and need no histogram.
    """
    count = frames[0, 0].numel()
    step = max(1, math.isqrt(count // _SUM_OVER))
    pixels = _to_levels(frames[..., ::step, ::step])
    ones = torch.ones((1, 1, pixels[0, 0].numel()), device=frames.device)
    rows = ones[:, None, ..., None]
    if sigma_xy is not None:
        size = pixels.shape[2], pixels.shape[3]
        positions = position_terms(size, sigma_xy / step, _SUM_TOLERANCE, _lanes(frames.device), frames.device)
        rows = _weigh(ones, positions)
    bins = even_bins(round(_SUM_BINS * 15 / sigma_rgb), sigma_rgb, _SUM_TOLERANCE, len(frames), frames.device)
    cells = cells_of_pixels(bins.places, pixels)
    red, green, blue = bins.factors.unbind(1)
    grid = ColourGrid(cells, red, green, _widen(blue, rows.shape[-1]))
    return grid.energies(rows.expand(len(frames), -1, -1, -1, -1))[:, 0] * (count / ones.numel()) ** 2


def _colour_grids(
    frames: Tensor, bins: float, sigma_rgb: float, tolerance: float, *, lanes: int, together: int | None
) -> Iterator[tuple[slice, ColourGrid]]:
    """Give the grids of all images, of so many images together (None: all)."""
    pixels = _to_levels(frames)
    found = adaptive_bins(histogram(pixels), bins, sigma_rgb=sigma_rgb, tolerance=tolerance, together=together)
    widened = _widen(found.factors[:, 2], lanes)
    images = together or len(frames)
    for side, levels, start in zip(
        found.sides, torch.split(pixels, images), range(0, len(frames), images), strict=True
    ):
        part = slice(start, start + len(levels))
        red, green, _ = found.factors[part, :, :side].unbind(1)
        cells = cells_of_pixels(found.places[part], levels)
        yield part, ColourGrid(cells, red, green, widened[part, : lanes * side])


@dataclass(frozen=True, slots=True)
class ColourGrid:
    """The kernel of colour of B images: ``Q U U^T Q^T``, U the Kronecker product of the factors of three channels.

    Attributes:
        cells: int64 ``[B, P]``, the cell of each pixel (Q).
        red: ``[B, m, k]``, bins by eigenvectors of the channel.
        green: the same.
        blue: the same for L lanes, ``[B, m L, k L]``.
    """

    cells: Tensor
    red: Tensor
    green: Tensor
    blue: Tensor

    def filter(self, rows: Tensor, memory: Tensor, *, out: Tensor) -> tuple[Tensor, Tensor]:
        """Filter rows ``[B, r, K, P, L]`` into ``out``, which may be ``rows`` itself.

        Returns:
            The energies of these rows; and the memory of the grid, ``memory`` where that is large enough, for the next
            call: fresh pages are slow.
        """
        grid, memory = self._splat(rows, memory)
        # Several threads share products of tall matrices better; wide ones are faster for one thread.
        tall = rows.shape[-1] == 1 and torch.get_num_threads() > 1
        low = self._project(grid, blue_first=tall)
        _multiply(low, self.red, self.green, self.blue.mT, blue_first=not tall, out=grid)
        numbers = _as_numbers(grid.view(*grid.shape[:2], -1, rows.shape[-1]))
        torch.gather(numbers, 2, self._places(rows), out=_as_numbers(_join(out)))
        return _sum_squares(low, rows), memory

    def energies(self, rows: Tensor) -> Tensor:
        """Give ``|U^T Q^T row|^2`` of rows ``[B, r, K, P, L]``, summed over terms and lanes: ``[B, K]``."""
        grid, _ = self._splat(rows, rows.new_empty(0))
        return _sum_squares(self._project(grid, blue_first=False), rows)

    def _splat(self, rows: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Sum rows into the cells of a grid ``[B, r K, m, m, m L]``, in given memory if that is large enough."""
        images, r, maps, _, lanes = rows.shape
        side = self.red.shape[1]
        shape = images, r * maps, side, side, side * lanes
        if len(memory) < math.prod(shape):
            memory = rows.new_empty(math.prod(shape))
        grid = memory[: math.prod(shape)].zero_().view(shape)
        numbers = _as_numbers(grid.view(*shape[:2], -1, lanes))
        numbers.scatter_add_(2, self._places(rows), _as_numbers(_join(rows)))
        return grid, memory

    def _project(self, grid: Tensor, *, blue_first: bool) -> Tensor:
        return _multiply(grid, self.red.mT, self.green.mT, self.blue, blue_first=blue_first)

    def _places(self, rows: Tensor) -> Tensor:
        return self.cells[:, None].expand(-1, rows.shape[1] * rows.shape[2], -1)


def _multiply(
    grid: Tensor, red: Tensor, green: Tensor, blue: Tensor, *, blue_first: bool, out: Tensor | None = None
) -> Tensor:
    """Multiply a grid ``[B, R, x, y, z]`` by ``[B, x', x]``, ``[B, y', y]`` and, from the right, ``[B, z, z']``."""
    images, rows, x, y, z = grid.shape
    new_x, new_y, new_z = red.shape[1], green.shape[1], blue.shape[2]
    shape = images, rows, new_x, new_y, new_z
    if blue_first:
        grid = torch.bmm(grid.view(images, rows * x * y, z), blue)
        grid = torch.bmm(_repeat(green, rows * x), grid.view(images * rows * x, y, new_z))
        last = _repeat(red, rows), grid.view(images * rows, x, new_y * new_z)
    else:
        grid = torch.bmm(_repeat(red, rows), grid.view(images * rows, x, y * z))
        grid = torch.bmm(_repeat(green, rows * new_x), grid.view(images * rows * new_x, y, z))
        last = grid.view(images, rows * new_x * new_y, z), blue
    flat = len(last[0]), last[0].shape[1], last[1].shape[2]
    return torch.bmm(*last, out=None if out is None else out.view(flat)).view(shape)


def _sum_squares(low: Tensor, rows: Tensor) -> Tensor:
    """Sum the squares of projected rows ``[B, r K, k, k, k L]`` by map, ``[B, K]``."""
    norms: Tensor = torch.linalg.vector_norm(low.view(*rows.shape[:3], -1), dim=(1, 3))
    return norms.square_()


def _widen(factor: Tensor, lanes: int) -> Tensor:
    """Let factors ``[B, m, k]`` act on interleaved lanes: their Kronecker product with the identity."""
    if lanes == 1:
        return factor
    images, m, k = factor.shape
    wide = factor.new_zeros(images, m, lanes, k, lanes)
    wide.diagonal(dim1=2, dim2=4).copy_(factor[..., None])
    return wide.view(images, m * lanes, k * lanes)


def _repeat(factor: Tensor, rows: int) -> Tensor:
    """Give each of B factors to so many rows: ``[B rows, ., .]``."""
    return factor.expand(rows, -1, -1) if len(factor) == 1 else factor.repeat_interleave(rows, dim=0)


def _weigh(maps: Tensor, positions: Tensor) -> Tensor:
    """Multiply maps ``[B, K, P]`` by position terms ``[r, P, L]``: rows ``[B, r, K, P, L]``."""
    lanes = torch.view_as_real(torch.complex(maps, maps)) if positions.shape[-1] == 2 else maps[..., None]
    return lanes[:, None] * positions[:, None]


def _join(rows: Tensor) -> Tensor:
    """View rows ``[B, r, K, P, L]`` as ``[B, r K, P, L]``."""
    return rows.view(len(rows), -1, *rows.shape[3:])


def _as_numbers(rows: Tensor) -> Tensor:
    """View ``[..., L]`` as real or complex numbers."""
    return rows[..., 0] if rows.shape[-1] == 1 else torch.view_as_complex(rows)


def _lanes(device: torch.device) -> int:
    """Say how many rows share an access: a CPU's pairs are complex numbers, whose sums accelerators may lack."""
    return 2 if _on_cpu(device) else 1


def _images_at_once(device: torch.device, *, pairs: bool) -> int | None:
    """Say how many images to filter at once; None: all.

    A thread of a CPU takes whole rows, of which an image has one, or three pairs with positions: one thread is fastest
    with one image at a time (it stays in the cache), several want some each.
    """
    if not _on_cpu(device):
        return None
    threads = torch.get_num_threads()
    return threads if pairs or threads == 1 else 2 * threads


def _on_cpu(device: torch.device) -> bool:
    return device.type == "cpu"


def _to_levels(frames: Tensor) -> Tensor:
    return frames if frames.dtype == torch.uint8 else frames.clamp(0, 255).to(torch.uint8)
