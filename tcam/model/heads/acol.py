"""ACoL: a class head of two branches; the second is trained on features whose region used by the first is erased."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tcam.precision import at_least_float32


class Acol(nn.Module):
    """Adversarial complementary learning (Zhang et al., CVPR 2018, arXiv:1804.06962).

    Each branch is two 3x3 convolutions with ReLU and a 1x1 convolution to class maps, whose means are the logits. Of
    the first branch's map of the tag, stretched to 0..1, the pixels of ``ERASED_FROM`` or more are erased from the
    features that the second branch sees. Both learn the tag. A class's map is the larger of the two branches'
    stretched maps, pixel by pixel; the class scores are the first branch's. The convolutions have 1024 channels as
    published, or as many as the features where those have fewer.
    """

    HIDDEN, ERASED_FROM = 1024, 0.6

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        if in_channels < 1 or num_classes < 1:
            raise ValueError(f"in_channels and num_classes must be 1 or more, got {in_channels} and {num_classes}")
        self.in_channels = in_channels
        self.first = _branch(in_channels, num_classes, min(self.HIDDEN, in_channels))
        self.second = _branch(in_channels, num_classes, min(self.HIDDEN, in_channels))

    @property
    def pooled_weight(self) -> Tensor | None:
        """None: the head is not linear in the mean features."""
        return None

    def forward(self, features: Tensor) -> Tensor:
        """Return the first branch's logits ``[N, K]`` of features ``[N, D, h, w]``.

        Raises:
            ValueError: another shape.
        """
        logits: Tensor = self._first_maps(features).mean(dim=(2, 3))
        return logits

    def both_logits(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return both branches' logits of features ``[N, D, h, w]``; for the second, the first's region is erased.

        Returns:
            Two tensors of logits ``[N, K]``; the loss is the sum of their cross-entropies.
        """
        maps, others = self._both_maps(features, labels)
        return maps.mean(dim=(2, 3)), others.mean(dim=(2, 3))

    def class_maps(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the fused maps of one class each, ``[N, h, w]`` in 0..1."""
        maps, others = self._both_maps(features, labels)
        return torch.maximum(_stretch(_pick(maps, labels)), _stretch(_pick(others, labels)))

    def _first_maps(self, features: Tensor) -> Tensor:
        if features.ndim != 4 or features.shape[1] != self.in_channels:
            raise ValueError(f"features must be [N, {self.in_channels}, h, w], got {list(features.shape)}")
        maps: Tensor = self.first(features)
        return at_least_float32(maps)

    def _both_maps(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        maps = self._first_maps(features)
        left = _stretch(_pick(maps.detach(), labels)) < self.ERASED_FROM
        others: Tensor = self.second(features * left[:, None])
        return maps, others.to(maps.dtype)


def _branch(in_channels: int, num_classes: int, hidden: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (in_channels, hidden):
        convolution = nn.Conv2d(before, hidden, 3, padding=1)
        nn.init.kaiming_uniform_(convolution.weight, mode="fan_in", nonlinearity="relu")
        layers += [convolution, nn.ReLU(inplace=True)]
    last = nn.Conv2d(hidden, num_classes, 1)
    nn.init.xavier_uniform_(last.weight)
    for layer in (*layers[::2], last):
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # convolutions with a bias
    return nn.Sequential(*layers, last)


def _pick(maps: Tensor, labels: Tensor) -> Tensor:
    return maps[torch.arange(len(maps), device=maps.device), labels]


def _stretch(maps: Tensor) -> Tensor:
    """Return each map of ``[N, h, w]`` normalised to 0..1; a constant one becomes 0."""
    shifted = maps - maps.amin(dim=(1, 2), keepdim=True)
    return (shifted / shifted.amax(dim=(1, 2), keepdim=True)).nan_to_num(nan=0.0)
