"""The Gaussian affinity of pixels as a product ``W = F F^T`` of few columns: how ``affinity`` is fast.

Per colour channel the Gaussian over the 256 levels is nearly of rank 16; levels share bins, narrow ones where the image
has many pixels, as many as its range of levels needs, and a bin stands for the mean of its levels. Position is a sum of
few products of one-dimensional eigenvectors. So pixels are summed into a colour grid, the grid is taken through small
dense matrices, and read back: no pairs, no loop over pixels. Being ``F F^T`` it stays symmetric and positive, which a
gradient of ``S^T W S`` needs.

Measured and left out: bins along brightness and two chroma axes (half the cells for the same error, but a longer range,
so no fewer products), bin means by trilinear weights (8 scatters), channels-last rows (torch adds them one by one).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tcam.supervision.gaussian_terms import level_vectors, position_terms

_THIN_TO: Final = 2000
"""Pixels that tell the histogram: a regular grid of some 45 x 45."""

_SUM_OVER: Final = 12_544
"""Pixels that are enough for the kernel's sum: 112 x 112."""

_SUM_BINS, _SUM_TOLERANCE = 52, 0.07
"""Of the kernel's sum: bins of a channel where sigma_rgb is 15, and the error that ranks may add to ``W S``."""

_LEAST_BINS, _MOST_BINS = 16, 128


def filter_through_grid(
    maps: Tensor, frames: Tensor, *, sigma_rgb: float, sigma_xy: float | None, tolerance: float
) -> Tensor:
    """Give ``W S`` of every image.

    Args:
        maps: float32 ``[B, K, H, W]``.
        frames: ``[B, 3, H, W]``, RGB in 0..255, of any dtype; rounded down.
        sigma_rgb: reach in colour levels.
        sigma_xy: reach in pixels, or None.
        tolerance: relative L2 error to aim at, 0.01 to 0.1.

    Returns:
        float32 ``[B, K, H W]``.
    """
    maps = maps.flatten(2)
    filtered, done, memory = maps.new_empty(maps.shape), 0, None
    for factors in _factors(frames, sigma_rgb=sigma_rgb, sigma_xy=sigma_xy, tolerance=tolerance):
        part = slice(done, done + len(factors.cells))
        memory = factors.filter(maps[part], memory, out=filtered[part])
        done = part.stop
    return filtered


def sum_through_grid(frames: Tensor, *, sigma_rgb: float, sigma_xy: float | None) -> Tensor:
    """Give ``1^T W 1`` of every image, float32 ``[B]``, from a regular grid of its pixels where they are very many.

    Bins of equal width, the same for all images, are good enough here and need no histogram.
    """
    height, width = frames.shape[2:]
    step = max(1, math.isqrt(height * width // _SUM_OVER))
    part = _to_levels(frames[:, :, ::step, ::step])
    places, factor = _even_bins(sigma_rgb, frames.device)
    positions = None
    if sigma_xy is not None:
        size = part.shape[2], part.shape[3]
        positions = position_terms(size, sigma_xy / step, _SUM_TOLERANCE, _lanes(frames.device), frames.device)
    cells = _cells(places.expand(len(part), 3, 256), part.flatten(2))
    factor = factor.expand(len(part), -1, -1)
    sums = KernelFactors(cells, factor, factor, factor, positions).sum()
    return sums * (height * width / (part.shape[2] * part.shape[3])) ** 2


def _factors(frames: Tensor, *, sigma_rgb: float, sigma_xy: float | None, tolerance: float) -> Iterator[KernelFactors]:
    """Factor the kernel of all images: on a CPU few at once, to stay in its cache, else all."""
    pixels = _to_levels(frames)
    height, width = frames.shape[2:]
    # Measured on real frames: the error falls with the bins to the power of 1.3, and position blurs some of it.
    widest = round((59 if sigma_xy is None else 53) * (0.04 / tolerance) ** 0.75 * 15 / sigma_rgb)
    widest = max(_LEAST_BINS, min(_MOST_BINS, widest))
    step = max(1, round(math.sqrt(height * width / _THIN_TO)))
    counts = _histogram(pixels[:, :, ::step, ::step])
    together = _images_at_once(frames.device, with_positions=sigma_xy is not None)
    sides, places, colours = _colour_bins(counts, widest, sigma_rgb, tolerance, together)
    positions = None
    if sigma_xy is not None:
        positions = position_terms((height, width), sigma_xy, tolerance, _lanes(frames.device), frames.device)
    parts = (torch.split(each, together or len(frames)) for each in (places, pixels.flatten(2), colours))
    for side, place, levels, colour in zip(sides, *parts, strict=True):
        red, green, blue = colour[:, :, :side].unbind(1)
        yield KernelFactors(_cells(place, levels), red, green, blue, positions)


@dataclass(frozen=True, slots=True)
class KernelFactors:
    """``F`` of B images: ``W = sum_p diag(phi_p) Q U U^T Q^T diag(phi_p)``.

    A row is one map times one position term. On a CPU rows lie in pairs, as complex numbers do (L = 2 lanes): adding
    or reading a pair costs what one number costs.

    Attributes:
        cells: int64 ``[B, P]``, the colour cell of each pixel (Q).
        red: ``[B, m, k]``, bins by eigenvectors of the channel; U is the Kronecker product of the three.
        green: the same.
        blue: the same.
        positions: ``[r / L, P, L]`` (phi), or None for colour alone (L = 1).
    """

    cells: Tensor
    red: Tensor
    green: Tensor
    blue: Tensor
    positions: Tensor | None

    def filter(self, maps: Tensor, memory: Tensor | None, *, out: Tensor) -> Tensor:
        """Write ``W S`` of maps ``[B, K, P]``; give the grid's memory, for the next call (fresh pages are slow)."""
        rows = self._weigh(maps)
        grid, memory = self._splat(rows, memory)
        grid = self._climb(self._project(grid), grid)
        if self.positions is None:
            _gather(grid, self.cells, out=out[..., None])
        else:
            spread = _gather(grid, self.cells, out=rows).view(*maps.shape[:2], *self.positions.shape)
            lanes = spread.mul_(self.positions).sum(dim=2).unbind(-1)
            torch.add(*lanes, out=out) if len(lanes) == 2 else out.copy_(lanes[0])
        return memory

    def sum(self) -> Tensor:
        """Give ``1^T W 1``, ``[B]``."""
        ones = self.red.new_ones(len(self.cells), 1, self.cells.shape[1])
        return self._project(self._splat(self._weigh(ones), None)[0]).square().sum(dim=(1, 2))

    def _weigh(self, maps: Tensor) -> Tensor:
        """Multiply maps by each position term, ``[B, R, P, L]``."""
        if self.positions is None:
            return maps[..., None]
        lanes = torch.view_as_real(torch.complex(maps, maps)) if self.positions.shape[-1] == 2 else maps[..., None]
        return (lanes[:, :, None] * self.positions).flatten(1, 2)

    def _splat(self, rows: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sum rows ``[B, R, P, L]`` into colour cells, ``[B, R, m^3, L]``, in given memory if that is large enough."""
        shape = (*rows.shape[:2], self.red.shape[1] ** 3, rows.shape[3])
        if memory is None or len(memory) < math.prod(shape):
            memory = rows.new_empty(math.prod(shape))
        grid = memory[: math.prod(shape)].zero_().view(shape)
        _as_numbers(grid).scatter_add_(2, self.cells[:, None].expand(rows.shape[:3]), _as_numbers(rows))
        return grid, memory

    def _project(self, grid: Tensor) -> Tensor:
        """Apply ``U^T`` to a grid ``[B, R, m^3, L]``, giving ``[B, R k^2, k L]``."""
        images, rows, _, lanes = grid.shape
        m, k = self.red.shape[1:]
        if _shares_tall_products(lanes):
            grid = torch.bmm(grid.view(images, rows * m * m, m), self.blue)
            grid = torch.bmm(_repeat(self.green.mT, rows * m), grid.view(images * rows * m, m, k))
            grid = torch.bmm(_repeat(self.red.mT, rows), grid.view(images * rows, m, k * k))
            return grid.view(images, rows * k * k, k)
        grid = torch.bmm(_repeat(self.red.mT, rows).contiguous(), grid.view(images * rows, m, -1))
        grid = torch.bmm(_repeat(self.green.mT, rows * k), grid.view(images * rows * k, m, -1))
        return torch.bmm(grid.view(images, rows * k * k, -1), _widen(self.blue, lanes))

    def _climb(self, grid: Tensor, target: Tensor) -> Tensor:
        """Apply ``U`` to ``[B, R k^2, k L]``, giving ``[B, R, m^3, L]`` in the memory of ``target``."""
        images, rows, _, lanes = target.shape
        m, k = self.red.shape[1:]
        if _shares_tall_products(lanes):
            grid = torch.bmm(_repeat(self.red, rows), grid.view(images * rows, k, k * k))
            grid = torch.bmm(_repeat(self.green, rows * m), grid.view(images * rows * m, k, k))
            torch.bmm(grid.view(images, rows * m * m, k), self.blue.mT, out=target.view(images, rows * m * m, m))
            return target
        grid = torch.bmm(grid, _widen(self.blue, lanes).mT)
        grid = torch.bmm(_repeat(self.green, rows * k), grid.view(images * rows * k, k, -1))
        torch.bmm(_repeat(self.red, rows), grid.view(images * rows, k, -1), out=target.view(images * rows, m, -1))
        return target


def _repeat(factor: Tensor, rows: int) -> Tensor:
    """Give each of B factors ``[B, m, k]`` to so many rows: ``[B rows, m, k]``."""
    return factor.expand(rows, -1, -1) if len(factor) == 1 else factor.repeat_interleave(rows, dim=0)


def _widen(factor: Tensor, lanes: int) -> Tensor:
    """Let factors ``[B, m, k]`` act on interleaved lanes: their Kronecker product with the identity."""
    if lanes == 1:
        return factor
    wide = factor.new_zeros(len(factor), factor.shape[1], lanes, factor.shape[2], lanes)
    for lane in range(lanes):
        wide[:, :, lane, :, lane] = factor
    return wide.view(len(factor), factor.shape[1] * lanes, factor.shape[2] * lanes)


def _as_numbers(rows: Tensor) -> Tensor:
    """View rows ``[R, P, L]`` as ``[R, P]`` real or complex numbers."""
    return rows[..., 0] if rows.shape[-1] == 1 else torch.view_as_complex(rows)


def _gather(grid: Tensor, cells: Tensor, *, out: Tensor) -> Tensor:
    """Read a grid ``[B, R, m^3, L]`` at the cells ``[B, P]`` into ``out``, ``[B, R, P, L]``."""
    places = cells[:, None].expand(-1, grid.shape[1], -1)
    torch.gather(_as_numbers(grid), 2, places, out=_as_numbers(out))
    return out


def _on_cpu(device: torch.device) -> bool:
    return device.type == "cpu"


def _lanes(device: torch.device) -> int:
    """Say how many rows share an access: a CPU's pairs are complex numbers, whose sums accelerators may lack."""
    return 2 if _on_cpu(device) else 1


def _shares_tall_products(lanes: int) -> bool:
    """Say whether the largest products are better tall than wide: several threads share them, one is slower."""
    return lanes == 1 and torch.get_num_threads() > 1


def _images_at_once(device: torch.device, *, with_positions: bool) -> int | None:
    """Say how many images to filter at once; None: all.

    A thread of a CPU takes whole rows, of which an image has one, or three pairs with positions: one thread is fastest
    with one image at a time (it stays in the cache), several want some each.
    """
    if not _on_cpu(device):
        return None
    threads = torch.get_num_threads()
    return threads if with_positions or threads == 1 else 2 * threads


def _to_levels(frames: Tensor) -> Tensor:
    return frames if frames.dtype == torch.uint8 else frames.clamp(0, 255).to(torch.uint8)


def _histogram(pixels: Tensor) -> Tensor:
    """Count levels by image and channel, from 0.001 on: uint8 ``[B, 3, H, W]`` to float32 ``[B, 3, 256]``."""
    places = pixels.flatten(2).flatten(0, 1).long()
    places += _starts_of_rows(len(places), 256, pixels.device)
    counts = torch.full((256 * len(places),), 1e-3, device=pixels.device)
    counts.scatter_add_(0, places.flatten(), counts.new_ones(places.numel()))
    return counts.view(*pixels.shape[:2], 256)


def _colour_bins(
    counts: Tensor, widest: int, sigma_rgb: float, tolerance: float, together: int | None
) -> tuple[list[int], Tensor, Tensor]:
    """Sort the levels of each image and channel into bins whose density follows the root of their histogram.

    Bins of one image should be as wide as those of another: an image that uses few of the levels gets fewer.

    Args:
        counts: ``[B, 3, 256]``, above 0.
        widest: the bins of an image that uses all levels alike, the most there are.
        sigma_rgb: reach of the kernel.
        tolerance: error to aim at; sets k.
        together: images that share a size of grid, what the neediest of them needs; None: all get a grid of
            ``widest``, without a look at the numbers (an accelerator would wait).

    Returns:
        The side of each group's grid (m); what each level adds to its pixel's place in the grid, int32
        ``[B, 3, 256]``; the factors ``[B, 3, M, k]``, M the longest side.
    """
    density = (counts @ _blur(counts.device)).sqrt_()
    # A floor gives rare levels bins too; else a few odd pixels would share one with strangers.
    density = density.div_(density.sum(dim=2, keepdim=True) / 0.95).add_(0.05 / 256)
    widths = (counts / density.square()).sum(dim=(1, 2)) / counts.sum(dim=(1, 2))  # squared, of one bin for all levels
    needed = (widest / 256 * widths.sqrt()).round_().clamp_(_LEAST_BINS, widest).long()[:, None, None]
    sides = [widest]
    if together is not None:
        needs = needed.flatten().tolist()
        sides = [max(needs[start : start + together]) for start in range(0, len(needs), together)]
    channel = _starts_of_rows(3, 1, counts.device)
    # Edges of the channels lie a third of a bin apart: those of greys, whose levels are equal, would else err alike.
    places = density.cumsum(dim=2).sub_(density, alpha=0.5).mul_(needed - 2 / 3).add_(channel, alpha=1 / 3)
    bin_of_level = places.long().minimum(needed - 1)
    vectors = level_vectors(sigma_rgb, 0.3 * tolerance, counts.device)
    factors = _means_by_bin(vectors, bin_of_level, counts, max(sides))
    strides = [(side * side, side, 1) for side in sides for _ in range(together or len(counts))][: len(counts)]
    return sides, bin_of_level.mul_(needed.new_tensor(strides)[:, :, None]).int(), factors


def _means_by_bin(vectors: Tensor, bin_of_level: Tensor, weights: Tensor, count: int) -> Tensor:
    """Average rows by bin, 0 where there are none.

    Args:
        vectors: ``[256, k + 1]``, a row to each level; the last column is 1.
        bin_of_level: int64 ``[..., 256]``, ascending.
        weights: of the levels, ``[..., 256]``, above 0.
        count: of bins.

    Returns:
        ``[..., count, k]``.
    """
    rows = bin_of_level.flatten(0, -2)
    bins = (rows + _starts_of_rows(len(rows), count, rows.device)).view(-1)
    starts = torch.searchsorted(bins, torch.arange(len(rows) * count, device=rows.device))
    levels = _levels_of_rows(len(rows), rows.device)
    sums = functional.embedding_bag(levels, vectors, starts, mode="sum", per_sample_weights=weights.flatten())
    sums = sums.view(*bin_of_level.shape[:-1], count, -1)
    return sums[..., :-1] / sums[..., -1:].clamp_min(1e-9)


@functools.lru_cache(maxsize=16)
def _blur(device: torch.device) -> Tensor:
    """Average nine neighbouring levels, fewer at the ends, ``[256, 256]``."""
    levels = torch.arange(256, device=device)
    near = ((levels[:, None] - levels).abs() <= 4).float()
    return near / near.sum(dim=0)


@functools.lru_cache(maxsize=16)
def _starts_of_rows(rows: int, stride: int, device: torch.device) -> Tensor:
    """Tell where each row starts, int64 ``[rows, 1]``."""
    return torch.arange(0, rows * stride, stride, device=device)[:, None]


@functools.lru_cache(maxsize=16)
def _levels_of_rows(rows: int, device: torch.device) -> Tensor:
    """Count 0..255 in each row, int64 ``[rows * 256]``."""
    return torch.arange(256, device=device).repeat(rows)


def _cells(places: Tensor, pixels: Tensor) -> Tensor:
    """Look up the cell, 0..m^3 - 1, of every pixel: uint8 ``[B, 3, P]`` to int64 ``[B, P]``."""
    if not _on_cpu(pixels.device):
        return places.gather(2, pixels.long()).sum(dim=1)
    cells = torch.empty(len(pixels), pixels.shape[2], dtype=torch.int64)
    reds, greens, blues, first, second = levels = torch.empty((5, pixels.shape[2]), dtype=torch.int32)
    pairs = torch.empty((256, 256), dtype=torch.int32)
    for (red, green, blue), image, target in zip(places, pixels, cells, strict=True):
        levels[:3].copy_(image)
        torch.add(red[:, None], green, out=pairs)  # a table of two channels: one look-up less for every pixel
        torch.index_select(pairs.view(-1), 0, reds.mul_(256).add_(greens), out=first)
        torch.index_select(blue, 0, blues, out=second)
        target.copy_(first.add_(second))
    return cells


@functools.lru_cache(maxsize=16)
def _even_bins(sigma: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sort levels into bins of equal width: places, int32 ``[3, 256]``, and the factor of each channel, ``[m, k]``."""
    side = max(_LEAST_BINS, min(_MOST_BINS, round(_SUM_BINS * 15 / sigma)))
    bins = torch.arange(256, device=device) * side // 256
    vectors = level_vectors(sigma, 0.3 * _SUM_TOLERANCE, device)
    factor = _means_by_bin(vectors, bins[None], torch.ones((1, 256), device=device), side)[0]
    strides = side ** torch.arange(2, -1, -1, device=device)[:, None]
    return (bins * strides).int(), factor
