"""Bins for the levels of the colour channels, which are the cells of an image's colour grid.

Per channel the Gaussian over the 256 levels has a rank of about 16. So levels share bins: narrow ones where the image
has many pixels, and as many as its range of levels needs. A bin is represented by the mean of its levels.

Measured and left out: bins along brightness and two chroma axes (half the cells for the same error, but a longer range,
so no fewer products), bin means by trilinear weights (8 scatters).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tcam.supervision.crf.gaussian_terms import level_vectors

_THIN_TO: Final = 2000
"""Number of pixels for the histogram: a regular grid of about 45 x 45."""

_LEAST_BINS, _MOST_BINS = 16, 128


@dataclass(frozen=True, slots=True)
class ColourBins:
    """The bins of B images.

    Attributes:
        sides: m of each image: its grid has ``m^3`` cells.
        places: what each level adds to its pixel's place in the grid, int32 ``[B, 3, 256]``.
        factors: ``[B, 3, M, k]``, M the longest side: a bin by its k numbers, of which the product with another bin's
            is the affinity of the two.
    """

    sides: list[int]
    places: Tensor
    factors: Tensor


def histogram(frames: Tensor) -> Tensor:
    """Count levels by image and channel, above 0, on some pixels: uint8 ``[B, 3, ..., H, W]`` to ``[B, 3, 256]``."""
    step = max(1, round(math.sqrt(frames[0, 0].numel() / _THIN_TO)))
    places = frames[..., ::step, ::step].long().flatten(2).flatten(0, 1)
    places += _starts_of_rows(len(places), 256, frames.device)
    counts = torch.full((256 * len(places),), 1e-3, device=frames.device)
    counts.scatter_add_(0, places.flatten(), counts.new_ones(places.numel()))
    return counts.view(*frames.shape[:2], 256)


def adaptive_bins(counts: Tensor, widest: float, *, sigma_rgb: float, tolerance: float, each: bool) -> ColourBins:
    """Sort the levels of each image and channel into bins whose density follows the root of their histogram.

    Bins of one image should be as wide as those of another: an image that uses few of the levels gets fewer.

    Args:
        counts: ``[B, 3, 256]``, above 0.
        widest: the bins of an image that uses all levels alike, the most there are (but 16 at least, 128 at most).
        sigma_rgb: reach of the kernel.
        tolerance: error to aim at; sets k.
        each: give every image a grid of the size it needs; else all get one of ``widest``, so that an accelerator need
            not wait for the numbers.
    """
    most = max(_LEAST_BINS, min(_MOST_BINS, 2 * round(widest / 2)))
    density = functional.avg_pool1d(counts, 9, stride=1, padding=4, count_include_pad=False).sqrt_()
    # A floor gives rare levels bins too; else a few rare pixels would share one with very different levels.
    density = density.div_(density.sum(dim=2, keepdim=True) / 0.95).add_(0.05 / 256)
    widths = (counts / density.square()).sum(dim=(1, 2)) / counts.sum(dim=(1, 2))  # squared, of one bin for all levels
    needed = (most / 256 * widths.sqrt() / 2).round_().mul_(2).clamp_(_LEAST_BINS, most).long()[:, None, None]
    sides: list[int] = needed.flatten().tolist() if each else [most] * len(counts)
    channel = _starts_of_rows(3, 1, counts.device)
    # Edges of the channels lie a third of a bin apart: those of greys, whose levels are equal, would else err alike.
    places = density.cumsum(dim=2).sub_(density, alpha=0.5).mul_(needed - 2 / 3).add_(channel, alpha=1 / 3)
    bin_of_level = places.long().minimum(needed - 1)
    factors = _means_by_bin(level_vectors(sigma_rgb, 0.3 * tolerance, counts.device), bin_of_level, counts, max(sides))
    side = needed if each else torch.full_like(needed, most)
    strides = torch.cat([side * side, side, torch.ones_like(side)], dim=1)
    return ColourBins(sides, bin_of_level.mul_(strides).int(), factors)


@functools.lru_cache(maxsize=16)
def even_bins(side: int, sigma_rgb: float, tolerance: float, images: int, device: torch.device) -> ColourBins:
    """Sort levels into bins of equal width, ``side`` of them (but 16 at least, 128 at most), alike for all images."""
    side = max(_LEAST_BINS, min(_MOST_BINS, side))
    bins = torch.arange(256, device=device) * side // 256
    vectors = level_vectors(sigma_rgb, 0.3 * tolerance, device)
    factors = _means_by_bin(vectors, bins.expand(1, 3, 256), torch.ones((1, 3, 256), device=device), side)
    strides = side ** torch.arange(2, -1, -1, device=device)[:, None]
    places = (bins * strides).int()
    return ColourBins([side] * images, places.expand(images, -1, -1), factors.expand(images, -1, -1, -1))


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
def _starts_of_rows(rows: int, stride: int, device: torch.device) -> Tensor:
    """Return where each row starts, int64 ``[rows, 1]``."""
    return torch.arange(0, rows * stride, stride, device=device)[:, None]


@functools.lru_cache(maxsize=16)
def _levels_of_rows(rows: int, device: torch.device) -> Tensor:
    """Count 0..255 in each row, int64 ``[rows * 256]``."""
    return torch.arange(256, device=device).repeat(rows)
