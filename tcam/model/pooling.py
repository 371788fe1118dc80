"""Class heads: from features to class scores."""

from __future__ import annotations

from torch import Tensor, nn


class Wgap(nn.Module):
    """Global average pooling, then a linear layer; class activation maps need no more than its weights.

    CAM, Zhou et al., arXiv:1512.04150. Initialised Xavier-uniform with a zero bias.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 1:
            raise ValueError(f"in_channels and num_classes must be 1 or more, got {in_channels} and {num_classes}")
        self.linear = nn.Linear(in_channels, num_classes)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @property
    def weight(self) -> Tensor:
        """The class weights, ``[K, D]``."""
        return self.linear.weight

    def forward(self, features: Tensor) -> Tensor:
        """Score features ``[N, D, h, w]``; gives logits ``[N, K]``.

        Raises:
            ValueError: another shape.
        """
        if features.ndim != 4 or features.shape[1] != self.linear.in_features:
            raise ValueError(f"features must be [N, {self.linear.in_features}, h, w], got {list(features.shape)}")
        logits: Tensor = self.linear(features.mean(dim=(2, 3)))
        return logits
