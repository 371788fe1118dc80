"""List timm's networks that can be a backbone, with their properties; nothing is computed or downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from tcam.errors import ConfigError
from tcam.model.backbone import Backbone, model_names

USUAL: Final = (
    *("resnet18", "resnet50", "resnext50_32x4d", "vgg16", "inception_v3", "densenet121", "regnety_016"),
    *("mobilenetv2_100", "mobilenetv3_large_100", "efficientnet_b0", "convnext_tiny"),
    *("deit_tiny_patch16_224", "deit_small_patch16_224"),
    *("vit_small_patch16_224.dino", "vit_small_patch14_dinov2.lvd142m"),
)
"""The families listed by default; all others are found by a pattern."""

_STRIDES: Final = (8, 16, None)


@dataclass(frozen=True, slots=True)
class BackboneFacts:
    """The properties of a network at its finest stride.

    Attributes:
        name: timm's.
        output_stride: the setting that gives this stride; None: the network's own.
        stride: input pixels per pixel of the last features.
        level_channels: channels of each level, fine to coarse.
        channels: of the class head's input.
        parameters: their number.
        attends: whether CAM methods that look at a class token's attention work.
    """

    name: str
    output_stride: int | None
    stride: float
    level_channels: tuple[int, ...]
    channels: int
    parameters: int
    attends: bool


def list_backbones(patterns: Sequence[str]) -> Iterator[BackboneFacts]:
    """Yield the usable networks whose name matches a pattern such as ``convnext*``; by default those of ``USUAL``.

    Raises:
        ConfigError: timm has no network of a pattern's name, or none of them can serve.
    """
    names = dict.fromkeys([name for pattern in patterns for name in model_names(pattern)] if patterns else USUAL)
    found = 0
    for name in names:
        facts = describe_backbone(name)
        if facts is not None:
            found += 1
            yield facts
    if not found:
        raise ConfigError(f"none of the {len(names)} models '{' '.join(patterns)}' can serve as a backbone")


def describe_backbone(name: str) -> BackboneFacts | None:
    """Return the properties of one network at the finest stride of 8, 16 and its own; None if it is not usable."""
    for output_stride in _STRIDES:
        try:
            with torch.device("meta"):  # shapes only: no memory, no arithmetic
                backbone = Backbone(name, output_stride=output_stride)
        except ConfigError:
            continue
        return BackboneFacts(
            name,
            None if backbone.patch is not None else output_stride,
            backbone.level_reductions[-1],
            backbone.level_channels,
            backbone.last_channels,
            sum(parameter.numel() for parameter in backbone.parameters()),
            backbone.attends,
        )
    return None
