"""Gaussian filtering W S over all pairs of pixels: by colour, or by colour and position; exact and fast.

``W[p, q] = exp(-|I_p - I_q|^2 / 2 sigma_rgb^2 - |x_p - x_q|^2 / 2 sigma_xy^2)``, the diagonal included, I in 0..255 and
x in pixels. This is the kernel of the dense CRF (Kraehenbuehl and Koltun, arXiv:1210.5644).

The fast form writes W as a product ``F F^T`` of few columns. Per colour channel the Gaussian over the 256 levels is
nearly of rank 18; levels share bins, narrow ones where the image has many pixels, and a bin stands for the mean of its
levels. Position is a sum of few products of one-dimensional eigenvectors. So pixels are summed into a colour grid,
the grid is taken through small dense matrices, and read back: no pairs, no loop over pixels. Being ``F F^T`` it stays
symmetric and positive, which a gradient of ``S^T W S`` needs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tcam.types import Size

_CHUNK: Final = 1024
_THIN_TO: Final = 3136
_COLOUR_TAIL: Final = 0.003
_POSITION_TAIL: Final = 0.025
_MOST_BINS: Final = 128
_MOST_TERMS: Final = 256


def gaussian_filter(
    values: Tensor, frames: Tensor, *, sigma_rgb: float, sigma_xy: float | None, exact: bool = False
) -> Tensor:
    """Filter maps by the similarity of pixels: ``W S`` for each map S; no gradient flows through it.

    On frames of real clips, with sigmas of 15 levels and 45 % of the image's side, the fast form is within 4 % of the
    exact one for blob-like maps (relative L2; 6 % for maps as rough as noise; 2 % and 3.5 % for colour alone), its
    direction within 1e-3 (cosine). The exact form takes time quadratic in the pixels; it is there to test against.

    Args:
        values: the maps, ``[B, K, H, W]``, floating point.
        frames: ``[B, 3, H, W]``, RGB in 0..255, of any dtype; the fast form rounds down.
        sigma_rgb: reach of the kernel in colour levels; the fast form is made for 7 and above.
        sigma_xy: reach in pixels; None: colour alone counts, wherever the pixels are.
        exact: go over all pairs, in float64.

    Returns:
        ``[B, K, H, W]``, in the dtype of ``values``.

    Raises:
        ValueError: other shapes, or a sigma of 0 or below.
    """
    _check(values, frames, sigma_rgb, sigma_xy)
    with torch.no_grad(), torch.autocast(values.device.type, enabled=False):
        if exact:
            return _filter_exactly(values, frames, sigma_rgb, sigma_xy)
        filtered = [
            factors.filter(maps) for factors, maps in _factors(values, frames, sigma_rgb=sigma_rgb, sigma_xy=sigma_xy)
        ]
        return torch.cat(filtered).view(values.shape).to(values.dtype)


def filter_with_mass(
    values: Tensor, frames: Tensor, *, sigma_rgb: float, sigma_xy: float | None, exact: bool = False
) -> tuple[Tensor, Tensor]:
    """Filter maps as ``gaussian_filter`` does, and sum the kernel over all pairs of pixels, ``1^T W 1``.

    The fast form takes that sum from a regular grid of some 56 x 56 pixels where the image has more.

    Args:
        values: the maps, ``[B, K, H, W]``, floating point.
        frames: ``[B, 3, H, W]``, RGB in 0..255, of any dtype.
        sigma_rgb: reach of the kernel in colour levels.
        sigma_xy: reach in pixels; None: colour alone counts.
        exact: go over all pairs, in float64.

    Returns:
        ``W S``, ``[B, K, H, W]``, and the sums, ``[B]``, both in the dtype of ``values``.

    Raises:
        ValueError: other shapes, or a sigma of 0 or below.
    """
    _check(values, frames, sigma_rgb, sigma_xy)
    with torch.no_grad(), torch.autocast(values.device.type, enabled=False):
        if exact:
            both = torch.cat([values, torch.ones_like(values[:, :1])], dim=1)
            both = _filter_exactly(both, frames, sigma_rgb, sigma_xy)
            return both[:, :-1], both[:, -1].sum(dim=(1, 2))
        parts = [
            (factors.filter(maps), factors.mass(values.shape[2:]))
            for factors, maps in _factors(values, frames, sigma_rgb=sigma_rgb, sigma_xy=sigma_xy)
        ]
        filtered, masses = (torch.cat(column).to(values.dtype) for column in zip(*parts, strict=True))
        return filtered.view(values.shape), masses


@dataclass(frozen=True, slots=True)
class _Factors:
    """``F`` of B images: ``W = sum_p diag(phi_p) Q U U^T Q^T diag(phi_p)``.

    Attributes:
        cells: int64 ``[B, P]``, the colour cell of each pixel (Q).
        colours: ``[B, 3, m, k]``, bins by eigenvectors of each channel (U is their Kronecker product).
        positions: ``[r, P]`` (phi), or None for colour alone.
    """

    cells: Tensor
    colours: Tensor
    positions: Tensor | None

    def filter(self, maps: Tensor) -> Tensor:
        """Give ``W S`` of maps ``[B, K, P]``."""
        grid = self._climb(self._project(self._splat(self._weigh(maps))))
        spread = _gather(grid, self.cells)
        if self.positions is None:
            return spread
        return spread.view(*maps.shape[:2], -1, maps.shape[2]).mul_(self.positions).sum(dim=2)

    def mass(self, size: Sequence[int]) -> Tensor:
        """Give ``1^T W 1`` of images of a size, ``[B]``."""
        step = max(1, round((size[0] * size[1] / _THIN_TO) ** 0.5))
        cells = self.cells.view(-1, *size)[:, ::step, ::step].flatten(1)
        positions = self.positions
        if positions is not None:
            positions = positions.view(-1, *size)[:, ::step, ::step].flatten(1)
        thinned = _Factors(cells, self.colours, positions)
        ones = self.colours.new_ones(len(cells), 1, cells.shape[1])
        whole_to_part = size[0] * size[1] / cells.shape[1]
        return whole_to_part**2 * thinned._project(thinned._splat(thinned._weigh(ones))).square().sum(dim=(1, 2, 3))

    def _weigh(self, maps: Tensor) -> Tensor:
        """Multiply maps by each position term, ``[B, K r, P]``."""
        if self.positions is None:
            return maps
        return (maps[:, :, None] * self.positions).flatten(1, 2)

    def _splat(self, rows: Tensor) -> Tensor:
        """Sum rows ``[B, R, P]`` into colour cells, ``[B, R, m^3]``."""
        grid = rows.new_zeros(*rows.shape[:2], self.colours.shape[2] ** 3)
        return _add_at(grid, self.cells[:, None].expand(rows.shape), rows)

    def _project(self, grid: Tensor) -> Tensor:
        """Apply ``U^T`` to a grid ``[B, R, m^3]``, giving ``[B, R, k, k^2]``."""
        images, rows = grid.shape[:2]
        m, k = self.colours.shape[2:]
        red, green, blue = self.colours.unbind(1)
        grid = grid.view(images, rows * m * m, m) @ blue
        grid = green.mT[:, None] @ grid.view(images, rows * m, m, k)
        return red.mT[:, None] @ grid.view(images, rows, m, k * k)

    def _climb(self, grid: Tensor) -> Tensor:
        """Apply ``U`` to ``[B, R, k, k^2]``, giving ``[B, R, m^3]``."""
        images, rows = grid.shape[:2]
        m, k = self.colours.shape[2:]
        red, green, blue = self.colours.unbind(1)
        grid = (red[:, None] @ grid).view(images, rows * m, k, k)
        grid = (green[:, None] @ grid).view(images, rows * m * m, k)
        return (grid @ blue.mT).view(images, rows, m**3)


def _add_at(grid: Tensor, cells: Tensor, rows: Tensor) -> Tensor:
    """Add rows ``[B, R, P]`` into a grid ``[B, R, M]`` at cells ``[B, R, P]``, in place."""
    if rows.device.type != "cpu":
        return grid.scatter_add_(2, cells, rows)
    # One row at a time is by far the fastest scatter that torch has on a CPU.
    for image in range(rows.shape[0]):
        for row in range(rows.shape[1]):
            grid[image, row].scatter_add_(0, cells[image, row], rows[image, row])
    return grid


def _gather(grid: Tensor, cells: Tensor) -> Tensor:
    """Read a grid ``[B, R, m^3]`` at the cells ``[B, P]``, giving ``[B, R, P]``."""
    if grid.device.type != "cpu":
        return grid.gather(2, cells[:, None].expand(-1, grid.shape[1], -1))
    parts = [part.index_select(1, places)[None] for part, places in zip(grid, cells, strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _factors(
    values: Tensor, frames: Tensor, *, sigma_rgb: float, sigma_xy: float | None
) -> Iterator[tuple[_Factors, Tensor]]:
    """Factor the kernel of each image, beside its maps ``[B, K, P]``; on a CPU image by image, to stay in its cache."""
    size = (frames.shape[2], frames.shape[3])
    bins = _bin_count(sigma_rgb, with_position=sigma_xy is not None)
    positions = None if sigma_xy is None else _position_terms(size, sigma_xy, frames.device)
    maps = values.float().flatten(2)
    step = 1 if frames.device.type == "cpu" else max(len(frames), 1)
    for start in range(0, len(frames), step):
        pixels = frames[start : start + step].flatten(2).long().clamp(0, 255)
        cells, colours = _colour_bins(pixels, bins, sigma_rgb)
        yield _Factors(cells, colours, positions), maps[start : start + step]


def _bin_count(sigma_rgb: float, *, with_position: bool) -> int:
    """Choose bins per channel: at a sigma of 15, 40 with positions and 64 without, where there are fewer maps."""
    return max(16, min(_MOST_BINS, round((600 if with_position else 960) / sigma_rgb)))


def _colour_bins(pixels: Tensor, bins: int, sigma_rgb: float) -> tuple[Tensor, Tensor]:
    """Sort the levels of each image and channel into bins whose density follows the root of their histogram.

    Args:
        pixels: int64 ``[B, 3, P]`` in 0..255.
        bins: m.
        sigma_rgb: reach of the kernel.

    Returns:
        cells int64 ``[B, P]`` in 0..m^3 - 1, and the factors ``[B, 3, m, k]``.
    """
    vectors = _level_vectors(sigma_rgb, pixels.device)
    counts = torch.zeros(*pixels.shape[:2], 256, device=pixels.device)
    counts = _add_at(counts, pixels, counts.new_ones(pixels.shape[2]).expand(pixels.shape))
    density = functional.avg_pool1d(counts, 9, stride=1, padding=4, count_include_pad=False).sqrt()
    # A floor gives rare levels bins too; else a few odd pixels would share one with strangers.
    density = 0.85 * density / density.sum(dim=2, keepdim=True) + 0.15 / 256
    bin_of_level = ((density.cumsum(dim=2) - density / 2) * bins).long().clamp(0, bins - 1)
    inside = bin_of_level[:, :, None] == torch.arange(bins, device=pixels.device)[:, None]
    shares = inside * (counts + 1e-3)[:, :, None]
    colours = shares / shares.sum(dim=3, keepdim=True).clamp_min(1e-9) @ vectors
    strides = bins ** torch.arange(2, -1, -1, device=pixels.device)
    cells = (bin_of_level * strides[:, None]).gather(2, pixels).sum(dim=1)
    return cells, colours


@functools.lru_cache(maxsize=16)
def _level_vectors(sigma: float, device: torch.device) -> Tensor:
    """Factor the Gaussian over the 256 levels: ``[256, k]``, its own transpose times it within 0.3 %."""
    vectors, strengths = _eigen(256, sigma)
    return (vectors * strengths.sqrt())[:, : _rank(strengths, _COLOUR_TAIL)].float().contiguous().to(device)


@functools.lru_cache(maxsize=16)
def _position_terms(size: Size, sigma: float, device: torch.device) -> Tensor:
    """Factor the Gaussian over pixel positions: ``[r, H W]``, the strongest products of row and column eigenvectors."""
    (rows, row_strengths), (columns, column_strengths) = _eigen(size[0], sigma), _eigen(size[1], sigma)
    strengths, order = torch.outer(row_strengths, column_strengths).flatten().sort(descending=True)
    order = order[: _rank(strengths, _POSITION_TAIL)]
    row, column = order // size[1], order % size[1]
    terms = rows[:, row].T[:, :, None] * columns[:, column].T[:, None, :] * strengths[: len(order), None, None].sqrt()
    return terms.flatten(1).float().contiguous().to(device)


def _eigen(count: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Give eigenvectors (columns) and eigenvalues, falling, of a Gaussian over ``count`` steps, float64."""
    steps = torch.arange(count, dtype=torch.float64)
    kernel = torch.exp(-(steps[:, None] - steps).square() / (2 * sigma**2))
    strengths, vectors = torch.linalg.eigh(kernel)
    return vectors.flip(1), strengths.flip(0).clamp_min(0)


def _rank(strengths: Tensor, tail: float) -> int:
    """Count the leading eigenvalues (falling) that leave out at most a share ``tail`` of the root sum of squares."""
    left_out = strengths.square().flip(0).cumsum(0).flip(0).sqrt()
    return min(_MOST_TERMS, max(1, int((left_out > tail * left_out[0]).sum())))


def _filter_exactly(values: Tensor, frames: Tensor, sigma_rgb: float, sigma_xy: float | None) -> Tensor:
    """Go over all pairs of pixels, a slab at a time."""
    features = frames.double().flatten(2) / sigma_rgb
    if sigma_xy is not None:
        grid = torch.meshgrid(*(torch.arange(n, device=frames.device) for n in frames.shape[2:]), indexing="ij")
        positions = torch.stack(grid).flatten(1).double() / sigma_xy
        features = torch.cat([features, positions.expand(len(frames), -1, -1)], dim=1)
    maps, points = values.double().flatten(2).mT, features.mT
    slabs = [
        torch.exp(-torch.cdist(points[:, start : start + _CHUNK], points).square() / 2) @ maps
        for start in range(0, points.shape[1], _CHUNK)
    ]
    return torch.cat(slabs, dim=1).mT.reshape(values.shape).to(values.dtype)


def _check(values: Tensor, frames: Tensor, sigma_rgb: float, sigma_xy: float | None) -> None:
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f"frames must be [B, 3, H, W], got {list(frames.shape)}")
    if values.ndim != 4 or (values.shape[0], *values.shape[2:]) != (frames.shape[0], *frames.shape[2:]):
        raise ValueError(f"values must be [B, K, H, W] over frames {list(frames.shape)}, got {list(values.shape)}")
    if len(frames) == 0:
        raise ValueError("frames must hold at least one image, got none")
    if sigma_rgb <= 0 or (sigma_xy is not None and sigma_xy <= 0):
        raise ValueError(f"sigmas must be above 0, got sigma_rgb {sigma_rgb} and sigma_xy {sigma_xy}")
