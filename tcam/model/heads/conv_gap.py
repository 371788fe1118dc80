"""A class head whose maps come from a 3x3 convolution, so that they also depend on neighbouring pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tcam.precision import at_least_float32


class ConvGap(nn.Module):
    """A 3x3 convolution to one map per class, then the mean of each (TS-CAM's head, Gao et al., arXiv:2103.14862)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 1:
            raise ValueError(f"in_channels and num_classes must be 1 or more, got {in_channels} and {num_classes}")
        self.conv = nn.Conv2d(in_channels, num_classes, 3, padding=1)
        nn.init.xavier_uniform_(self.conv.weight)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    @property
    def pooled_weight(self) -> Tensor | None:
        """None: at the edges the head is not linear in the mean features."""
        return None

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, K]`` of features ``[N, D, h, w]``.

        Raises:
            ValueError: another shape.
        """
        logits: Tensor = self._maps(features).mean(dim=(2, 3))
        return logits

    def class_maps(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the maps that are pooled, of one class each, ``[N, h, w]``."""
        return self._maps(features)[torch.arange(len(features), device=features.device), labels]

    def _maps(self, features: Tensor) -> Tensor:
        if features.ndim != 4 or features.shape[1] != self.conv.in_channels:
            raise ValueError(f"features must be [N, {self.conv.in_channels}, h, w], got {list(features.shape)}")
        maps: Tensor = self.conv(features)
        return at_least_float32(maps)
