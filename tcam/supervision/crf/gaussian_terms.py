"""One-dimensional Gaussians as sums of few eigenvectors: of the levels of a colour channel, and of positions."""

from __future__ import annotations

import functools
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tcam.types import Size

_MOST_TERMS: Final = 256

Positions = tuple[Tensor, Tensor]
"""Terms of the affinity of positions, by row ``[r, H]`` and by column ``[r, W]``: a pixel's is the product of two."""


@functools.lru_cache(maxsize=16)
def level_vectors(sigma: float, tail: float, device: torch.device) -> Tensor:
    """Factor the Gaussian over the 256 levels, ``[256, k]``: times its own transpose within ``tail``; and a 1 each."""
    vectors, strengths = _eigen(256, sigma)
    vectors = (vectors * strengths.sqrt())[:, : _rank(strengths, tail)]
    # Few vectors lose most at black and white; unit rows give every level its affinity of 1 to itself back.
    return functional.pad(functional.normalize(vectors, dim=1), (0, 1), value=1.0).float().to(device)


@functools.lru_cache(maxsize=16)
def position_terms(size: Size, sigma: float, tolerance: float, device: torch.device) -> Positions:
    """Factor the Gaussian over pixels into the strongest products of an eigenvector of the rows and one of columns."""
    (rows, row_strengths), (columns, column_strengths) = _eigen(size[0], sigma), _eigen(size[1], sigma)
    strengths, order = torch.outer(row_strengths, column_strengths).flatten().sort(descending=True)
    order = order[: _rank(strengths, 0.6 * tolerance)]
    row, column = order // size[1], order % size[1]
    rows, columns = (rows * row_strengths.sqrt()).T[row], (columns * column_strengths.sqrt()).T[column]
    return rows.float().contiguous().to(device), columns.float().contiguous().to(device)


def _eigen(count: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Return eigenvectors (columns) and eigenvalues, falling, of a Gaussian over ``count`` steps, float64."""
    steps = torch.arange(count, dtype=torch.float64)
    kernel = torch.exp(-(steps[:, None] - steps).square() / (2 * sigma**2))
    strengths, vectors = torch.linalg.eigh(kernel)
    return vectors.flip(1), strengths.flip(0).clamp_min(0)


def _rank(strengths: Tensor, tail: float) -> int:
    """Count the leading eigenvalues (falling) that leave out at most a share ``tail`` of the root sum of squares."""
    left_out = strengths.square().flip(0).cumsum(0).flip(0).sqrt()
    needed = int((left_out > tail * left_out[0]).sum())
    return min(_MOST_TERMS, max(1, needed))
