"""A faster form of the U-Net decoder for inference on a CPU; its maps are the same up to rounding.

Measured (2 cores with AMX, ResNet-50 and MobileNetV2 at 224 x 224, eager and compiled, float32 and bfloat16): a block's
first convolution takes 1.2 to 3 times less time than over the enlarged maps joined with the level's; a whole network is
6 to 29 % faster (``tools/bench/stream.py --unfused``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tcam.model.decoder import UnetDecoder, check_levels, maps_of, resize_maps
from tcam.types import Size

_MOST_ENLARGED: Final = 512
"""Channels: a transposed convolution of 2048 on 7 x 7 pixels takes twice the time of the plain one in bfloat16."""


class FusedDecoder(nn.Module):
    """A trained ``UnetDecoder`` whose blocks need no enlarged maps, no concatenation and no normalisation.

    A 3 x 3 convolution of maps enlarged twofold by repeating pixels equals a transposed 4 x 4 convolution with stride 2
    of the maps themselves: 4 products per value instead of 9. A convolution of concatenated maps is the sum of one
    convolution of each. Only the difference of the two logits matters, so only that is computed.
    """

    def __init__(self, decoder: UnetDecoder) -> None:
        """Take the weights of a decoder, which is not changed.

        Raises:
            ValueError: the decoder is in training mode, so its normalisation is not fixed.
        """
        super().__init__()
        if decoder.training:
            raise ValueError("a decoder can be fused in evaluation mode only: call .eval() first")
        self.level_channels = decoder.level_channels
        before = (decoder.level_channels[-1], *(_last(block).out_channels for block in decoder.blocks))
        self.blocks = nn.ModuleList(
            _FusedBlock(cast("nn.Sequential", block), maps) for block, maps in zip(decoder.blocks, before, strict=False)
        )
        self.head = _contrast(decoder.head)
        self.to(memory_format=torch.channels_last).eval()

    def forward(self, levels: Sequence[Tensor], size: Size, labels: Tensor | None = None) -> Tensor:
        """Return the map logits of ``size``, ``[N, 2, H, W]``, minus those of the background, which are then 0.

        See ``UnetDecoder.forward``.

        Raises:
            ValueError: other levels.
        """
        check_levels(levels, self.level_channels)
        maps = levels[-1]
        for block, level in zip(self.blocks, levels[-2::-1], strict=False):
            maps = block(maps, level)
        if len(self.blocks) == len(levels):
            maps = self.blocks[-1](maps, None, larger=maps.shape[2] < size[0])
        return functional.pad(_enlarge(maps_of(self.head(maps), labels, per_tag=1), size), (0, 0, 0, 0, 1, 0))


class _FusedBlock(nn.Module):
    def __init__(self, block: nn.Sequential, channels: int) -> None:
        """Take a block whose first ``channels`` inputs are the coarser maps."""
        super().__init__()
        convolution, norm, _, second, second_norm, _ = block
        self.joined = fuse_conv_bn_eval(cast("nn.Conv2d", convolution), cast("nn.BatchNorm2d", norm))
        self.second = fuse_conv_bn_eval(cast("nn.Conv2d", second), cast("nn.BatchNorm2d", second_norm))
        self.enlarged = _transposed(self.joined, channels) if channels <= _MOST_ENLARGED else None
        self.level = _of_level(self.joined, channels)

    def forward(self, maps: Tensor, level: Tensor | None, *, larger: bool = False) -> Tensor:
        size = (maps.shape[2], maps.shape[3]) if level is None else (level.shape[2], level.shape[3])
        doubled = larger or (2 * maps.shape[2], 2 * maps.shape[3]) == size
        if doubled and self.enlarged is not None:
            maps = self.enlarged(maps)
            if level is not None and self.level is not None:
                maps = maps + self.level(level)
        else:
            maps = resize_maps(maps, (2 * size[0], 2 * size[1]) if larger else size)
            maps = self.joined(maps if level is None else torch.cat([maps, level], dim=1))
        return functional.relu(self.second(functional.relu(maps, inplace=True)), inplace=True)


def _contrast(head: nn.Conv2d) -> nn.Conv2d:
    """Replace the convolution to the two logits of each tag by one to their difference, foreground minus background."""
    found = nn.Conv2d(head.in_channels, head.out_channels // 2, 3, padding=1)
    for mine, both in zip(found.parameters(), head.parameters(), strict=True):
        mine.data.copy_(both.data[1::2] - both.data[::2])
    return found


def _enlarge(maps: Tensor, size: Size) -> Tensor:
    """Bring maps ``[N, 1, h, w]`` to the image's size, bilinear, as two products: compiled, three times as fast."""
    if (maps.shape[2], maps.shape[3]) == tuple(size):
        return maps
    with torch.autocast(maps.device.type, enabled=False):
        rows, columns = (
            functional.interpolate(
                torch.eye(before, device=maps.device)[None], size=after, mode="linear", align_corners=True
            )[0]
            for before, after in zip(maps.shape[2:], size, strict=True)
        )
        return rows.mT @ maps.float() @ columns


def _last(block: nn.Module) -> nn.Conv2d:
    return cast("nn.Conv2d", cast("nn.Sequential", block)[3])


def _transposed(convolution: nn.Conv2d, channels: int) -> nn.ConvTranspose2d:
    """Make the convolution of the first inputs, each pixel repeated twice by twice, one of the pixels themselves."""
    weight = convolution.weight.detach()[:, :channels]
    # Row k of the transposed kernel reaches from row r of the small maps to row 2 r + k - 1 of the large ones, whose
    # taps lie on rows 2 r + k - 2 to 2 r + k: those of them on 2 r and 2 r + 1, which are row r, are summed.
    taps = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    found = nn.ConvTranspose2d(channels, len(weight), 4, stride=2, padding=1)
    with torch.no_grad():
        found.weight.copy_(torch.einsum("ka,lb,oiab->iokl", taps, taps, weight))
        cast("Tensor", found.bias).copy_(cast("Tensor", convolution.bias))
    return found


def _of_level(convolution: nn.Conv2d, channels: int) -> nn.Conv2d | None:
    """Keep the inputs of the level, without the bias; None: the block joins none."""
    weight = convolution.weight.detach()[:, channels:]
    if not weight.shape[1]:
        return None
    found = nn.Conv2d(weight.shape[1], len(weight), 3, padding=1, bias=False)
    with torch.no_grad():
        found.weight.copy_(weight)
    return found
