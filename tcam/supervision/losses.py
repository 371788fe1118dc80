"""The terms of the localizer's loss as functions of map logits: seeds, soft targets, CRF energy, size barrier."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tcam.precision import at_least_float32
from tcam.supervision.crf.affinity import affinity_sum, gaussian_energies
from tcam.types import IGNORE, PixelLabels


def partial_cross_entropy(map_logits: Tensor, labels: PixelLabels) -> Tensor:
    """Return the mean of ``-log S^y(p)`` over the labelled pixels of the batch (TCAM, arXiv:2208.14542).

    Args:
        map_logits: ``[N, 2, H, W]``.
        labels: pseudo-labels of the same N maps.

    Returns:
        A scalar; 0, with a gradient of 0, where no pixel is labelled.

    Raises:
        ValueError: other shapes.
    """
    _check(map_logits)
    expected = [map_logits.shape[0], *map_logits.shape[2:]]
    if list(labels.labels.shape) != expected:
        raise ValueError(f"labels must be {expected} like map_logits, got {list(labels.labels.shape)}")
    targets = labels.labels.long()
    total = functional.cross_entropy(at_least_float32(map_logits), targets, ignore_index=IGNORE, reduction="sum")
    return total / (targets != IGNORE).sum().clamp_min(1)


def soft_cross_entropy(map_logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over all pixels of ``-m log S^1(p) - (1 - m) log S^0(p)``, with ``m`` the target.

    Args:
        map_logits: ``[N, 2, H, W]``.
        targets: ``[N, H, W]`` in 0..1, how likely a pixel is foreground.

    Returns:
        A scalar; 0 for no map.

    Raises:
        ValueError: other shapes.
    """
    _check(map_logits)
    expected = [map_logits.shape[0], *map_logits.shape[2:]]
    if list(targets.shape) != expected:
        raise ValueError(f"targets must be {expected} like map_logits, got {list(targets.shape)}")
    background, foreground = at_least_float32(map_logits).unbind(1)
    odds = foreground - background
    total = functional.binary_cross_entropy_with_logits(odds, targets.to(odds.dtype), reduction="sum")
    return total / max(targets.numel(), 1)


def crf_energy(
    map_logits: Tensor,
    frames: Tensor,
    *,
    sigma_rgb: float,
    sigma_xy: float | None,
    tolerance: float = 0.04,
    whole: bool = False,
    exact: bool = False,
) -> Tensor:
    """Return the dense CRF energy ``-sum_r S_r^T W S_r`` up to a constant, where S is the softmax of the logits.

    It is low where maps follow the edges of their images (dense CRF loss, Tang et al., arXiv:1803.09569; the term of
    TCAM with the exact kernel). It is negative. With ``q = S_1 - S_0 = tanh((z_1 - z_0) / 2)`` the sum is
    ``(q^T W q + 1^T W 1) / 2``, so only one map is filtered, and ``W q`` gives both value and gradient. ``1^T W 1``
    depends only on the image and not on the map; it is left out unless ``whole``.

    Args:
        map_logits: ``[N, 2, H, W]``; or sequences ``[N, T, 2, H, W]``, whose pixels are treated as one image. These
            need ``sigma_xy`` None, because frames of a sequence have no common positions.
        frames: ``[N, 3, H, W]`` or ``[N, T, 3, H, W]``, RGB in 0..255: the network's input before normalisation.
        sigma_rgb: reach of the kernel in colour levels.
        sigma_xy: reach in pixels; None: only colour counts.
        tolerance: allowed relative error of ``W q``; see ``gaussian_filter``.
        whole: include ``-1^T W 1 / 2``; takes more time.
        exact: go over all pairs of pixels, in float64; a reference for small images.

    Returns:
        One energy per image, ``[N]``, float32 (float64 for such logits).

    Raises:
        ValueError: other shapes, sequences with ``sigma_xy``, or a sigma of 0 or below.
    """
    if map_logits.ndim != 5:
        _check(map_logits)
    elif map_logits.shape[2] != 2 or sigma_xy is not None:
        given = f"{list(map_logits.shape)} and sigma_xy {sigma_xy}"
        raise ValueError(f"map_logits of sequences must be [N, T, 2, H, W] and sigma_xy None, got {given}")
    expected = [*map_logits.shape[:-3], 3, *map_logits.shape[-2:]]
    if list(frames.shape) != expected:
        raise ValueError(f"frames must be {expected} like map_logits, got {list(frames.shape)}")
    if map_logits.ndim == 5:
        frames = frames.transpose(1, 2)
    # Before the maps, which drive the frames out of a CPU's caches.
    constant = affinity_sum(frames, sigma_rgb=sigma_rgb, sigma_xy=sigma_xy, exact=exact) if whole else None
    kernel = functools.partial(
        gaussian_energies, sigma_rgb=sigma_rgb, sigma_xy=sigma_xy, tolerance=tolerance, exact=exact
    )
    with torch.autocast(map_logits.device.type, enabled=False):
        wide = at_least_float32(map_logits)
        energies: Tensor = _CrfEnergy.apply(wide, frames, kernel)
    return energies if constant is None else torch.sub(energies, constant, alpha=0.5)


class _CrfEnergy(torch.autograd.Function):
    """Energies ``[N]`` of logits ``[N, 2, H, W]`` over frames ``[N, 3, H, W]``.

    Or of ``[N, T, 2, H, W]`` over ``[N, 3, T, H, W]``. The gradient reuses ``W q`` (W is symmetric).
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        logits: Tensor,
        frames: Tensor,
        kernel: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    ) -> Tensor:
        # In place where it can be: these maps are larger than a CPU's caches. tanh(z / 2) by way of the faster sigmoid.
        contrast = (logits[..., 1, :, :] - logits[..., 0, :, :]).sigmoid_().sub_(0.5)  # half of q
        energies, filtered = kernel(contrast[:, None], frames)
        filtered = filtered[:, 0]
        ctx.save_for_backward(torch.addcmul(filtered, filtered, contrast.square_(), value=-4, out=filtered))
        return energies[:, 0] * -2

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.BackwardCFunction, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        both = slope.new_empty(*slope.shape[:-2], 2, *slope.shape[-2:])
        background, foreground = both.unbind(-3)
        grad = grads[0].view(-1, *[1] * (slope.ndim - 1))
        torch.mul(slope, grad, out=background)
        torch.mul(slope, -grad, out=foreground)
        return both, None, None


def log_barrier(x: Tensor, t: float) -> Tensor:
    """Penalise ``x > 0`` smoothly: the extended log-barrier (Kervadec et al., arXiv:1904.04205).

    ``-(1/t) log(-x)`` up to ``-1/t^2``, its tangent ``t x - (1/t) log(1/t^2) + 1/t`` beyond.

    Args:
        x: any shape.
        t: sharpness, above 0.

    Returns:
        As ``x``.

    Raises:
        ValueError: ``t`` of 0 or below.
    """
    if t <= 0:
        raise ValueError(f"t must be above 0, got {t}")
    knee = -1 / t**2
    # The clamp keeps the branch not taken from a logarithm of 0, whose infinite slope would spoil the gradient.
    inside = -torch.log(-x.clamp_max(knee)) / t
    return torch.where(x <= knee, inside, t * x + (2 * math.log(t) + 1) / t)


def size_barrier(map_logits: Tensor, t: float) -> Tensor:
    """Return the absolute size constraint: foreground and background must not vanish (TCAM, arXiv:2208.14542).

    ``1/2 sum_r mean_b barrier_t(-a_b^r)``, where the areas a are sums of the softmax over pixels.

    Args:
        map_logits: ``[N, 2, H, W]``.
        t: sharpness of the barrier, above 0.

    Returns:
        A scalar.

    Raises:
        ValueError: another shape, or ``t`` of 0 or below.
    """
    _check(map_logits)
    wide = at_least_float32(map_logits)
    areas = wide.softmax(dim=1).sum(dim=(2, 3))
    return log_barrier(-areas, t).sum() / (2 * max(len(areas), 1))


def _check(map_logits: Tensor) -> None:
    if map_logits.ndim != 4 or map_logits.shape[1] != 2:
        raise ValueError(f"map_logits must be [N, 2, H, W], got {list(map_logits.shape)}")
