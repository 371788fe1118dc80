"""Gaussian filtering ``W S`` over all pairs of pixels, by colour or by colour and position: an exact and a fast form.

``W[p, q] = exp(-|I_p - I_q|^2 / 2 sigma_rgb^2 - |x_p - x_q|^2 / 2 sigma_xy^2)``, the diagonal included, I in 0..255 and
x in pixels. This is the kernel of the dense CRF (Kraehenbuehl and Koltun, arXiv:1210.5644). ``colour_grid`` explains
the fast form. The exact form takes time quadratic in the number of pixels; it is a reference for tests.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from tcam.supervision.crf.colour_grid import filter_through_grid, sum_through_grid

_CHUNK: Final = 1024


def gaussian_filter(
    values: Tensor,
    frames: Tensor,
    *,
    sigma_rgb: float,
    sigma_xy: float | None,
    tolerance: float = 0.04,
    exact: bool = False,
) -> Tensor:
    """Filter maps by the similarity of pixels: ``W S`` for each map S; no gradient flows through it.

    Args:
        values: the maps, ``[B, K, H, W]``, floating point; for sequences (colour only) ``[B, K, T, H, W]``.
        frames: ``[B, 3, H, W]`` or ``[B, 3, T, H, W]``, RGB in 0..255, of any dtype; the fast form rounds down.
        sigma_rgb: reach of the kernel in colour levels; the fast form is made for 7 and above.
        sigma_xy: reach in pixels; None: only colour counts, wherever the pixels are.
        tolerance: relative L2 error of the fast form's ``W S``, 0.01 to 0.1, on average over frames of real video (at
            224 x 224, sigmas 15 and 100; the worst frame has 1.6 times that). ``tools/bench/crf.py`` measures it.
        exact: go over all pairs, in float64.

    Returns:
        As ``values``; empty where there is no image or no pixel.

    Raises:
        ValueError: other shapes, sequences with ``sigma_xy``, a sigma of 0 or below, or a tolerance out of range.
    """
    _, filtered = gaussian_energies(
        values, frames, sigma_rgb=sigma_rgb, sigma_xy=sigma_xy, tolerance=tolerance, exact=exact
    )
    return filtered


def gaussian_energies(
    values: Tensor, frames: Tensor, *, sigma_rgb: float, sigma_xy: float | None, tolerance: float, exact: bool
) -> tuple[Tensor, Tensor]:
    """Return ``S^T W S`` of each map, ``[B, K]``, and the maps filtered as by ``gaussian_filter``."""
    _check(values, frames, sigma_rgb, sigma_xy, tolerance)
    with torch.no_grad(), torch.autocast(values.device.type, enabled=False):
        if values.numel() == 0:
            return values.flatten(2).sum(dim=2), values.clone()
        if exact:
            filtered = _filter_exactly(values, frames, sigma_rgb, sigma_xy)
            return (values * filtered).flatten(2).sum(dim=2), filtered
        filtered, energies = filter_through_grid(
            values.float(), frames, sigma_rgb=sigma_rgb, sigma_xy=sigma_xy, tolerance=tolerance
        )
        return energies.to(values.dtype), filtered.to(values.dtype)


def affinity_sum(frames: Tensor, *, sigma_rgb: float, sigma_xy: float | None, exact: bool = False) -> Tensor:
    """Return the sum of the kernel over all pairs of pixels of each image, ``1^T W 1``.

    Args:
        frames: ``[B, 3, H, W]``, or ``[B, 3, T, H, W]`` for colour only, RGB in 0..255, of any dtype; the fast form
            rounds down.
        sigma_rgb: reach of the kernel in colour levels.
        sigma_xy: reach in pixels; None: only colour counts.
        exact: go over all pairs, in float64; else within some 3 %.

    Returns:
        ``[B]``, float32, or float64 where exact.

    Raises:
        ValueError: other shapes, sequences with ``sigma_xy``, or a sigma of 0 or below.
    """
    one = torch.ones((), dtype=torch.float64 if exact else torch.float32, device=frames.device)
    ones = one.expand(len(frames), 1, *frames.shape[2:])
    _check(ones, frames, sigma_rgb, sigma_xy)
    with torch.no_grad(), torch.autocast(frames.device.type, enabled=False):
        if ones.numel() == 0:
            return ones.flatten(1).sum(dim=1)
        if exact:
            return _filter_exactly(ones, frames, sigma_rgb, sigma_xy).flatten(1).sum(dim=1)
        return sum_through_grid(frames, sigma_rgb=sigma_rgb, sigma_xy=sigma_xy)


def _filter_exactly(values: Tensor, frames: Tensor, sigma_rgb: float, sigma_xy: float | None) -> Tensor:
    """Go over all pairs of pixels, a slab at a time."""
    features = frames.double().flatten(2) / sigma_rgb
    if sigma_xy is not None:
        grid = torch.meshgrid(*(torch.arange(n, device=frames.device) for n in frames.shape[2:]), indexing="ij")
        positions = torch.stack(grid).flatten(1).double() / sigma_xy
        features = torch.cat([features, positions.expand(len(frames), -1, -1)], dim=1)
    maps, points = values.double().flatten(2).mT, features.mT
    filtered = torch.empty_like(maps)
    for start in range(0, points.shape[1], _CHUNK):
        slab = slice(start, start + _CHUNK)
        filtered[:, slab] = torch.cdist(points[:, slab], points).square_().div_(-2).exp_() @ maps
    return filtered.mT.reshape(values.shape).to(values.dtype)


def _check(values: Tensor, frames: Tensor, sigma_rgb: float, sigma_xy: float | None, tolerance: float = 0.04) -> None:
    dims = (4, 5) if sigma_xy is None else (4,)
    if frames.ndim not in dims or frames.shape[1] != 3:
        raise ValueError(f"frames must be [B, 3, H, W], or [B, 3, T, H, W] without sigma_xy, got {list(frames.shape)}")
    if values.ndim != frames.ndim or (values.shape[0], *values.shape[2:]) != (frames.shape[0], *frames.shape[2:]):
        sizes = ", ".join(map(str, frames.shape[2:]))
        raise ValueError(f"values must be [{len(frames)}, K, {sizes}] like frames, got {list(values.shape)}")
    if not 0.01 <= tolerance <= 0.1:
        raise ValueError(f"tolerance must be 0.01 to 0.1, got {tolerance}")
    if sigma_rgb <= 0 or (sigma_xy is not None and sigma_xy <= 0):
        raise ValueError(f"sigmas must be above 0, got sigma_rgb {sigma_rgb} and sigma_xy {sigma_xy}")
