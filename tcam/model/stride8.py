"""VGG-16 and Inception-v3 as used in weakly supervised localization: features of stride 8 and a new last stage.

These are the encoders of TCAM (arXiv:2208.14542; Inception as in SPG, arXiv:1807.08902). Layers keep the names of timm
and torchvision, so that ImageNet weights load. The layers of ``NEW`` are in no weight file and start at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

NEW: Final = "new_stage"
"""Prefix of the layers that ImageNet weights do not have."""

_WIDTH: Final = 1024


class Vgg16Stride8(nn.Module):
    """VGG-16 without its last two max-poolings, and with a sixth stage: a 3x3 convolution to 1024 channels and a ReLU.

    Levels of a 224 x 224 image: 64 at 224, 128 at 112, 256 at 56, 1024 at 28.
    """

    feature_info: Sequence[Mapping[str, object]] = (
        {"num_chs": 64, "reduction": 1, "module": "features.3"},
        {"num_chs": 128, "reduction": 2, "module": "features.8"},
        {"num_chs": 256, "reduction": 4, "module": "features.15"},
        {"num_chs": _WIDTH, "reduction": 8, "module": NEW},
    )

    def __init__(self, vgg: nn.Module) -> None:
        """Take over timm's ``vgg16``, whose layers it shares."""
        super().__init__()
        self.pretrained_cfg = cast("Mapping[str, object]", vgg.pretrained_cfg)
        layers = list(cast("nn.Sequential", vgg.features))
        pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        for i in pools[-2:]:
            layers[i] = nn.Identity()
        self.features = nn.Sequential(*layers)
        self.new_stage = nn.Sequential(_new_convolution(512), nn.ReLU(inplace=True))

    def forward_intermediates(
        self, images: Tensor, *, indices: Sequence[int] | None = None, **_: object
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the last features and the levels, as timm does; the first levels only if there are indices."""
        return _run(self, images, [*(f"features.{i}" for i in range(len(self.features))), NEW], indices)


class InceptionStride8(nn.Module):
    """Inception-v3 up to Mixed_6e, which keeps the resolution, then two 3x3 convolutions to 1024 channels with ReLU.

    Padded so that an image of 224 x 224 gives maps of 28 x 28. Levels: 64 at 110, 80 at 56, 288, 768 and 1024 at 28.
    Half the input of each new convolution is dropped in training.
    """

    feature_info: Sequence[Mapping[str, object]] = (
        {"num_chs": 64, "reduction": 2, "module": "Conv2d_2b_3x3"},
        {"num_chs": 80, "reduction": 4, "module": "Conv2d_3b_1x1"},
        {"num_chs": 288, "reduction": 8, "module": "Mixed_5d"},
        {"num_chs": 768, "reduction": 8, "module": "Mixed_6e"},
        {"num_chs": _WIDTH, "reduction": 8, "module": NEW},
    )
    LAYERS = (
        *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Pool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "Pool2"),
        *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    )

    def __init__(self, inception: nn.Module) -> None:
        """Take over timm's ``inception_v3``, whose layers it shares and changes."""
        super().__init__()
        self.pretrained_cfg = cast("Mapping[str, object]", inception.pretrained_cfg)
        for name in self.LAYERS:
            self.add_module(name, inception.get_submodule(name))
        cast("nn.Conv2d", self.get_submodule("Conv2d_1a_3x3.conv")).padding = (1, 1)
        self.Pool1 = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.Pool2 = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.Mixed_6a = _MixedStride1(inception.get_submodule("Mixed_6a"))
        stages = [
            nn.Sequential(nn.Dropout(0.5), _new_convolution(channels), nn.ReLU(inplace=True))
            for channels in (768, _WIDTH)
        ]
        self.new_stage = nn.Sequential(*stages)

    def forward_intermediates(
        self, images: Tensor, *, indices: Sequence[int] | None = None, **_: object
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the last features and the levels, as timm does; the first levels only if there are indices."""
        return _run(self, images, [*self.LAYERS, NEW], indices)


class _MixedStride1(nn.Module):
    """Inception's reduction block with stride 1: all three branches keep the size."""

    def __init__(self, mixed: nn.Module) -> None:
        super().__init__()
        for name, branch in mixed.named_children():
            self.add_module(name, branch)
        for name in ("branch3x3", "branch3x3dbl_3"):
            convolution = cast("nn.Conv2d", self.get_submodule(f"{name}.conv"))
            convolution.stride, convolution.padding = (1, 1), (1, 1)

    def forward(self, features: Tensor) -> Tensor:
        double = features
        for name in ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"):
            double = self.get_submodule(name)(double)
        pooled = functional.max_pool2d(features, 3, stride=1, padding=1)
        return torch.cat([self.get_submodule("branch3x3")(features), double, pooled], dim=1)


def _run(
    network: Vgg16Stride8 | InceptionStride8, images: Tensor, layers: Sequence[str], indices: Sequence[int] | None
) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
    names = [str(level["module"]) for level in network.feature_info]
    levels: list[Tensor] = []
    features = images
    for name in layers:
        features = network.get_submodule(name)(features)
        if name in names:
            levels.append(features)
        if indices is not None and len(levels) == len(indices):
            return levels
    return features, levels


def _new_convolution(channels: int) -> nn.Conv2d:
    convolution = nn.Conv2d(channels, _WIDTH, 3, padding=1)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(cast("Tensor", convolution.bias))
    return convolution


@dataclass(frozen=True, slots=True)
class Stride8Form:
    """How timm's network becomes the form of stride 8: keywords it is created with, and what takes it over."""

    take_over: Callable[[nn.Module], nn.Module]
    options: Mapping[str, object] = field(default_factory=dict)


STRIDE_8_FORMS: Final[Mapping[str, Stride8Form]] = MappingProxyType(
    {
        "vgg16": Stride8Form(Vgg16Stride8, {"mlp_ratio": 1 / 4096}),  # of the classifier, which is left out: not 0.5 GB
        "inception_v3": Stride8Form(InceptionStride8),
    }
)
"""By timm's name; all other networks of timm get their stride from timm."""
