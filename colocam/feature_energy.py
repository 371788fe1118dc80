"""The joint term in feature space: positions that look alike to the backbone should have similar maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tcam.precision import at_least_float32
from tcam.supervision.joint_walk import gaussian_affinity, principal_components


def joint_feature_energy(
    map_logits: Tensor, features: Tensor, *, sigma: float, components: int, adaptive: bool
) -> Tensor:
    """Return the joint energy of sequences, with features in place of the colours of ``joint_colour_energy``.

    ``R = -sum_r S_r^T K S_r``, ``K[p, q] = exp(-|f_p - f_q|^2 / 2 sigma^2)`` for every pair of positions in any two
    frames. This is ``sum_r S_r^T K (1 - S_r)`` up to a constant. S is the softmax of the logits, averaged down to the
    resolution of the features. ``f`` are the ``principal_components`` of a sequence, as in ``JointWalk``. The energy is
    exact. No gradient goes through the features.

    Args:
        map_logits: ``[B, T, 2, H, W]``.
        features: ``[B, T, C, h, w]`` of the same frames.
        sigma: reach of the kernel; the largest principal component has standard deviation 1.
        components: principal components kept.
        adaptive: divide each energy by its size, without a gradient through it; see ``joint_colour_energy``.

    Returns:
        The mean over sequences, a scalar, float32 (float64 for such logits); 0 where there is no sequence or T is 1.

    Raises:
        ValueError: other shapes, ``sigma`` of 0 or below, or no component.
    """
    shape = map_logits.shape
    if map_logits.ndim != 5 or shape[2] != 2:
        raise ValueError(f"map_logits must be [B, T, 2, H, W], got {list(shape)}")
    if features.ndim != 5 or features.shape[:2] != shape[:2]:
        expected = f"[{shape[0]}, {shape[1]}, C, h, w]"
        raise ValueError(f"features must be {expected} like map_logits, got {list(features.shape)}")
    if sigma <= 0 or components < 1:
        raise ValueError(f"sigma must be above 0 and components 1 or more, got {sigma} and {components}")
    wide = at_least_float32(map_logits)
    if shape[0] == 0 or shape[1] < 2:
        return wide[:0].sum()
    with torch.autocast(map_logits.device.type, enabled=False):
        contrast = torch.tanh((wide[:, :, 1] - wide[:, :, 0]) / 2)  # S_1 - S_0
        contrast = functional.interpolate(contrast, size=features.shape[3:], mode="area").flatten(1)
        reduced = [principal_components(sequence.detach(), components) / sigma for sequence in features]
        energies = torch.stack([_energy(q, points) for q, points in zip(contrast, reduced, strict=True)])
    return (energies / energies.detach().abs()).mean() if adaptive else energies.mean()


def _energy(contrast: Tensor, points: Tensor) -> Tensor:
    """Return ``-(q^T K q + 1^T K 1) / 2``, which is ``-sum_r S_r^T K S_r`` for ``q = S_1 - S_0``.

    K is symmetric, so ``K q`` gives the gradient too, and only one kernel is in memory at a time.
    """
    with torch.no_grad():
        ones = torch.ones_like(contrast)
        filtered, sums = (gaussian_affinity(points.to(contrast.dtype)) @ torch.stack([contrast, ones], dim=1)).unbind(1)
        constant = (contrast.dot(filtered) - sums.sum()) / 2
    return constant - contrast.dot(filtered)
