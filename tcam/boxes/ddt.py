"""Deep descriptor transformation: find the common object of a video's frames, without tags, training or threshold.

Wei et al., "Unsupervised Object Discovery and Co-Localization by Deep Descriptor Transformation" (arXiv:1707.06397;
IJCAI 2017, arXiv:1705.02758). A baseline: what a trained localizer must beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tcam.boxes.extract import boxes_at_thresholds
from tcam.types import Size

_STEPS: Final = 200
_SETTLED: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Component:
    """The first principal component of descriptors: their mean and the direction of most variance, ``[D]`` each."""

    mean: Tensor
    direction: Tensor


def principal_component(features: Tensor) -> Component:
    """Return the first principal component of the descriptors of some frames.

    The sign of an eigenvector is arbitrary. It is chosen such that the border of the frames lies below the mean, so
    that positive values are more often inside.

    Args:
        features: ``[N, D, h, w]``, of frames of one video.

    Returns:
        The component; its direction has length 1, or 0 if all descriptors are equal.

    Raises:
        ValueError: another shape, or no descriptor.
    """
    if features.ndim != 4 or features.numel() == 0:
        raise ValueError(f"features must be [N, D, h, w] with something in them, got {list(features.shape)}")
    descriptors = features.float().movedim(1, 3).flatten(0, 2)
    mean = descriptors.mean(dim=0)
    component = Component(mean, _strongest(descriptors - mean))
    maps = component_maps(features, component)
    border = torch.ones(maps.shape[1:], dtype=torch.bool, device=maps.device)
    border[1:-1, 1:-1] = False
    sign = -1.0 if float(maps[:, border].mean()) > 0 else 1.0
    return Component(mean, sign * component.direction)


def component_maps(features: Tensor, component: Component) -> Tensor:
    """Return ``xi^T (x - mean)`` of every descriptor x, ``[N, h, w]``; positive where the common object is."""
    shift = component.direction @ component.mean
    return torch.einsum("d,ndhw->nhw", component.direction, features.float()) - shift


def component_boxes(maps: Tensor, size: Size) -> Tensor:
    """Return the box of the largest positive region of each map.

    Args:
        maps: ``[N, h, w]``, signed.
        size: (height, width) to which they are first enlarged (bilinear).

    Returns:
        float64 ``[N, 4]`` on the CPU, half-open, in pixels of ``size``; NaN where nothing is positive.

    Raises:
        ValueError: another shape.
    """
    if maps.ndim != 3:
        raise ValueError(f"maps must be [N, h, w], got {list(maps.shape)}")
    grown = functional.interpolate(maps[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]
    return boxes_at_thresholds((grown > 0).float(), [0.0])[:, 0]


def _strongest(centred: Tensor) -> Tensor:
    """Return the first eigenvector of ``X^T X`` by power iteration, which needs no ``[D, D]`` matrix."""
    direction = functional.normalize(centred[centred.square().sum(dim=1).argmax()], dim=0)  # zeros stay zeros
    for _ in range(_STEPS):
        turned = functional.normalize(centred.T @ (centred @ direction), dim=0)
        settled = float((turned - direction).abs().amax()) < _SETTLED
        direction = turned
        if settled:
            break
    return direction
