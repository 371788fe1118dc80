"""A small convolutional head on three levels of a frozen backbone: maps at 1/16 of the frame, enlarged to it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tcam.model.decoder import maps_of
from tcam.types import Size

REDUCTION = 16
"""Pixels of the frame per position of the head's maps, or nearly so."""

_PROJECTED, _HIDDEN, _DROPOUT = 128, 96, 0.2


def sixteenth(levels: Sequence[Tensor], size: Size) -> tuple[Tensor, Tensor]:
    """Return the level next to 1/16 of the frame's sides, and the finer one before it averaged down to it.

    Of two equally near, the coarser is taken. Applied to its own result, it returns the same.

    Args:
        levels: ``[N, C_i, h_i, w_i]``, fine to coarse.
        size: height and width of the frame.

    Returns:
        ``[N, C_a, h, w]`` and ``[N, C_b, h, w]``: fine, middle.
    """
    position = _nearest([size[0] / level.shape[2] for level in levels])
    middle, fine = levels[position], levels[max(position - 1, 0)]
    if fine.shape[2:] != middle.shape[2:]:
        fine = functional.interpolate(fine.float(), size=middle.shape[2:], mode="area")
    return fine, middle


def _nearest(reductions: Sequence[float]) -> int:
    distances = [round(abs(math.log(reduction / REDUCTION)), 6) for reduction in reductions]
    return max(i for i, distance in enumerate(distances) if distance == min(distances))


class LevelHead(nn.Module):
    """Background and foreground maps from what a frozen backbone sees at 1/16 of the frame.

    Its input are two levels (``sixteenth``) and the last features of the backbone. The last ones have unit length and
    are projected to 128 principal components (``fit``). All are standardised per channel and joined. Two 3 x 3
    convolutions with dropout and a 1 x 1 convolution make the two maps. It learns in a minute from some hundred frames,
    where a U-Net learns little.
    """

    def __init__(
        self,
        level_channels: Sequence[int],
        last_channels: int,
        level_reductions: Sequence[float],
        *,
        num_tags: int = 1,
    ) -> None:
        """Build the layers with torch's default weights.

        Args:
            level_channels: channels of the backbone's levels, fine to coarse.
            last_channels: D, channels of the class head's input.
            level_reductions: pixels of the frame per position of each level.
            num_tags: pairs of maps, one for each tag; 1 for all tags.

        Raises:
            ValueError: no level.
        """
        super().__init__()
        if not level_channels or len(level_channels) != len(level_reductions):
            raise ValueError(f"expected a reduction for every level, got {level_channels} and {level_reductions}")
        middle = _nearest(level_reductions)
        self.channels = (level_channels[max(middle - 1, 0)], level_channels[middle], last_channels)
        projected = min(_PROJECTED, last_channels)
        self.project = nn.Conv2d(last_channels, projected, 1, bias=False).requires_grad_(False)
        sizes = (*self.channels[:2], projected)
        self.standardise = nn.ModuleList(nn.BatchNorm2d(size, affine=False) for size in sizes)
        self.layers = nn.Sequential(
            nn.Conv2d(sum(sizes), _HIDDEN, 3, padding=1, bias=False),
            nn.BatchNorm2d(_HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout2d(_DROPOUT),
            nn.Conv2d(_HIDDEN, _HIDDEN // 2, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(_HIDDEN // 2, 2 * num_tags, 1),
        )

    @torch.no_grad()
    def fit(self, last: Tensor) -> None:
        """Set the projection to the principal components of the last features ``[N, D, h, w]`` of training frames."""
        flat = functional.normalize(last.float(), dim=1).permute(0, 2, 3, 1).flatten(0, 2)
        flat = flat - flat.mean(dim=0)
        axes = torch.linalg.eigh(flat.T @ flat)[1][:, -self.project.out_channels :]
        self.project.weight.copy_(axes.T[:, :, None, None])

    def forward(self, levels: Sequence[Tensor], size: Size, labels: Tensor | None = None) -> Tensor:
        """Return the map logits of ``size``, ``[N, 2, H, W]``: 0 background, 1 foreground.

        Args:
            levels: ``[N, C_i, h_i, w_i]``, fine to coarse, or what ``sixteenth`` left of them; then the last features
                ``[N, D, h, w]``.
            size: height and width of the image.
            labels: int64 ``[N]``, the tag to map, for a head with maps for each.

        Raises:
            ValueError: other levels.
        """
        *before, last = levels
        parts = (*sixteenth(before, size), last)
        if tuple(part.shape[1] for part in parts) != self.channels:
            shapes = [list(part.shape) for part in parts]
            raise ValueError(f"features must be three [N, C, h, w] with C = {list(self.channels)}, got {shapes}")
        fine, middle, last = (part.to(self.project.weight.dtype) for part in parts)
        projected = self.project(functional.normalize(last, dim=1) * math.sqrt(last.shape[1]))
        projected = functional.interpolate(projected, size=middle.shape[2:], mode="bilinear", align_corners=False)
        parts = (fine, middle, projected)
        joined = torch.cat([norm(part) for norm, part in zip(self.standardise, parts, strict=True)], dim=1)
        maps = maps_of(self.layers(joined), labels)
        return functional.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
