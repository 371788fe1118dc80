"""Localizers of a run that have the same backbone: frames pass it once for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from pipelines.models.engine import FrameMaps
from pipelines.models.localizer import NetworkLocalizer
from tcam.model.backbone import Pyramid


def share_backbones(localizers: Sequence[NetworkLocalizer]) -> Sequence[NetworkLocalizer]:
    """Let localizers whose backbones have equal weights have one backbone in common; returns the localizers."""
    for i, localizer in enumerate(localizers):
        for other in localizers[:i]:
            if _equal(localizer.network.backbone, other.network.backbone):
                localizer.network.backbone = other.network.backbone
                break
    return localizers


def maps_of_all(
    localizers: Sequence[NetworkLocalizer], frames: Tensor, labels: Tensor | None
) -> Iterator[FrameMaps[Tensor]]:
    """Yield the maps of each localizer for uint8 frames ``[N, 3, H, W]``; see ``NetworkLocalizer``.

    Localizers with one backbone in common are on one device.
    """
    users = Counter(id(localizer.network.backbone) for localizer in localizers)
    pyramids: dict[int, Pyramid] = {}
    for localizer in localizers:
        backbone = id(localizer.network.backbone)
        if users[backbone] == 1:
            yield localizer(frames, labels)
            continue
        frames = localizer.to_device(frames)
        if backbone not in pyramids:
            pyramids[backbone] = localizer.pyramid(frames)
        yield localizer.map_features(pyramids[backbone], frames, labels)


def _equal(one: nn.Module, other: nn.Module) -> bool:
    weights, others = one.state_dict(), other.state_dict()
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)
