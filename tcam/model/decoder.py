"""The U-Net decoder: a feature pyramid to background and foreground maps at full resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tcam.errors import ConfigError
from tcam.types import Size


class UnetDecoder(nn.Module):
    """Class-agnostic decoder from the coarsest level to the finest (U-Net, arXiv:1505.04597; F-CAM, arXiv:2109.07069).

    Each block resizes the map to the next finer level, concatenates that level, and twice applies a 3 x 3 convolution,
    normalisation and ReLU. The last block concatenates nothing and doubles the size. A 3 x 3 convolution makes the two
    maps. A light decoder has no last block: its maps have the size of the finest level and are enlarged at the end.
    With ``num_tags`` it makes two maps for each tag, and returns those of one.
    """

    def __init__(
        self, level_channels: Sequence[int], *, channels: Sequence[int] = (256, 128, 64, 32, 16), num_tags: int = 1
    ) -> None:
        """Build the blocks with random weights.

        Args:
            level_channels: channels of the pyramid's levels, fine to coarse.
            channels: output channels of the blocks, coarse to fine; a shorter pyramid uses the first ones. One number
                fewer than there are levels makes a light decoder.
            num_tags: pairs of maps, one for each tag; 1 for all tags.

        Raises:
            ConfigError: too few ``channels``.
            ValueError: no level.
        """
        super().__init__()
        if not level_channels:
            raise ValueError("level_channels must hold at least one level, got none")
        if len(channels) < max(1, len(level_channels) - 1):
            raise ConfigError(
                f"decoder_channels must hold a number for each of the backbone's {len(level_channels)} levels, or (a "
                f"light decoder) one fewer, got {list(channels)}; add some, or set levels_used to {len(channels)}"
            )
        outputs = list(channels[: len(level_channels)])
        skips = [*level_channels[-2::-1], 0][: len(outputs)]
        inputs = [level_channels[-1], *outputs[:-1]]
        self.level_channels = tuple(level_channels)
        self.blocks = nn.ModuleList(
            _block(before + skip, after) for before, skip, after in zip(inputs, skips, outputs, strict=True)
        )
        self.head = nn.Conv2d(outputs[-1], 2 * num_tags, 3, padding=1)
        nn.init.xavier_uniform_(self.head.weight)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)

    def forward(self, levels: Sequence[Tensor], size: Size, labels: Tensor | None = None) -> Tensor:
        """Return the map logits of ``size``, ``[N, 2, H, W]``: 0 background, 1 foreground.

        Args:
            levels: ``[N, C_i, h_i, w_i]``, fine to coarse, with the channels given at construction.
            size: height and width of the image.
            labels: int64 ``[N]``, the tag to map, for a decoder with maps for each.

        Raises:
            ValueError: other levels.
        """
        check_levels(levels, self.level_channels)
        maps = levels[-1]
        for block, skip in zip(self.blocks, levels[-2::-1], strict=False):
            maps = block(torch.cat([resize_maps(maps, (skip.shape[2], skip.shape[3])), skip], dim=1))
        if len(self.blocks) == len(levels):
            if maps.shape[2] < size[0]:
                maps = functional.interpolate(maps, scale_factor=2, mode="nearest")
            maps = self.blocks[-1](maps)
        return enlarge_logits(maps_of(self.head(maps), labels), size)


def maps_of(maps: Tensor, labels: Tensor | None, *, per_tag: int = 2) -> Tensor:
    """Return the maps of one tag per frame, ``[N, per_tag, h, w]``, from those of all.

    Args:
        maps: ``[N, K * per_tag, h, w]``, tag by tag; those of a single tag are returned as they are.
        labels: int64 ``[N]``, the tags.
        per_tag: maps of each tag.

    Raises:
        ValueError: maps of several tags, and no labels.
    """
    if maps.shape[1] == per_tag:
        return maps
    count = maps.shape[0]  # not len(), which an export would take for a constant
    if labels is None or labels.ndim != 1 or labels.shape[0] != count:
        found = "none" if labels is None else list(labels.shape)
        raise ValueError(f"labels must be [N], one for each of {count} frames, got {found}")
    by_tag = maps.reshape(count, -1, per_tag, maps.shape[2], maps.shape[3])
    return by_tag[torch.arange(count, device=maps.device), labels]


def check_levels(levels: Sequence[Tensor], level_channels: tuple[int, ...]) -> None:
    """Check the number and channels of a pyramid's levels.

    Raises:
        ValueError: a level is not ``[N, C, h, w]`` with the expected C, or there are more or fewer levels.
    """
    found = tuple(level.shape[1] for level in levels if level.ndim == 4)
    if found != level_channels or len(found) != len(levels):
        shapes = [list(level.shape) for level in levels]
        raise ValueError(f"levels must be [N, C, h, w] with C = {list(level_channels)}, got {shapes}")


def resize_maps(maps: Tensor, size: Size) -> Tensor:
    """Resize maps ``[N, C, h, w]`` to a level's size: by repeating pixels if it is twice as large, else bilinear."""
    if (maps.shape[2], maps.shape[3]) == size:
        return maps
    if (2 * maps.shape[2], 2 * maps.shape[3]) == size:
        return functional.interpolate(maps, scale_factor=2, mode="nearest")
    return functional.interpolate(maps, size=size, mode="bilinear", align_corners=True)


def enlarge_logits(logits: Tensor, size: Size) -> Tensor:
    """Resize logits ``[N, 2, h, w]`` to the image's size (bilinear)."""
    if (logits.shape[2], logits.shape[3]) == tuple(size):
        return logits
    return functional.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=True)


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (in_channels, out_channels):
        convolution = nn.Conv2d(before, out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_uniform_(convolution.weight, mode="fan_in", nonlinearity="relu")
        layers += [convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
