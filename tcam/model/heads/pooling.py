"""Class heads: features to class scores, and each head's own map of a class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor, nn

from tcam.model.heads.acol import Acol
from tcam.model.heads.conv_gap import ConvGap
from tcam.precision import at_least_float32


class Wgap(nn.Module):
    """Global average pooling, then a linear layer, whose weights give the class activation maps.

    CAM, Zhou et al., arXiv:1512.04150. Initialised Xavier-uniform with a zero bias.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        _check_sizes(in_channels, num_classes)
        self.linear = nn.Linear(in_channels, num_classes)
        _initialise(self.linear)

    @property
    def weight(self) -> Tensor:
        """The class weights, ``[K, D]``."""
        return self.linear.weight

    @property
    def pooled_weight(self) -> Tensor | None:
        """The class weights, ``[K, D]``: the head is linear in the mean features."""
        return self.linear.weight

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, K]`` of features ``[N, D, h, w]``.

        Raises:
            ValueError: another shape.
        """
        _check_features(features, self.linear.in_features)
        logits: Tensor = self.linear(features.mean(dim=(2, 3)))
        return logits

    def class_maps(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return ``sum_k w_k A_k`` of one class each, ``[N, h, w]``; the bias plays no part."""
        return torch.einsum("nd,ndhw->nhw", self.linear.weight.to(features.dtype)[labels], features)


class ClassMaps(nn.Module):
    """A 1x1 convolution to one map per class, which the poolings below share.

    With ``background`` there is one more map, before those of the classes, for pixels of no class. It does not count in
    the class scores, as in the published models (TCAM, arXiv:2208.14542), so only frames without an object could train
    it. With ``modalities`` the map of a class is the mean of several.
    """

    def __init__(self, in_channels: int, num_classes: int, *, background: bool, modalities: int = 1) -> None:
        super().__init__()
        _check_sizes(in_channels, num_classes)
        self.modalities = modalities
        self.first = modalities if background else 0
        self.conv = nn.Conv2d(in_channels, self.first + num_classes * modalities, 1)
        _initialise(self.conv)

    @property
    def class_weight(self) -> Tensor:
        """The classes' weights, ``[K, D]``."""
        weight = self.conv.weight[self.first :, :, 0, 0]
        return weight.view(-1, self.modalities, weight.shape[1]).mean(dim=1)

    @property
    def class_bias(self) -> Tensor:
        """The classes' biases, ``[K]``."""
        bias = self.conv.bias
        assert bias is not None
        return bias[self.first :].view(-1, self.modalities).mean(dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the classes' maps ``[N, K, h, w]`` of features ``[N, D, h, w]``, in float32 or more.

        Raises:
            ValueError: another shape.
        """
        _check_features(features, self.conv.in_channels)
        maps: Tensor = self.conv(features)[:, self.first :]
        maps = maps.reshape(len(maps), -1, self.modalities, *maps.shape[2:]).mean(dim=2)
        return at_least_float32(maps)

    def of_labels(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the map of one class each, ``[N, h, w]``."""
        weight, bias = self.class_weight.to(features.dtype), self.class_bias.to(features.dtype)
        return torch.einsum("nd,ndhw->nhw", weight[labels], features) + bias[labels, None, None]


class Gap(nn.Module):
    """The mean of each class's map: ``Wgap`` with pooling after the linear layer (Lin et al., arXiv:1312.4400)."""

    def __init__(self, in_channels: int, num_classes: int, *, background: bool = False) -> None:
        super().__init__()
        self.maps = ClassMaps(in_channels, num_classes, background=background)

    @property
    def pooled_weight(self) -> Tensor | None:
        """The class weights, ``[K, D]``: the head is linear in the mean features."""
        return self.maps.class_weight

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, K]`` of features ``[N, D, h, w]``."""
        logits: Tensor = self.maps(features).mean(dim=(2, 3))
        return logits

    def class_maps(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the maps that are pooled, of one class each, ``[N, h, w]``."""
        return self.maps.of_labels(features, labels)


class MaxPool(nn.Module):
    """The highest value of each class's map (Oquab et al., CVPR 2015)."""

    def __init__(self, in_channels: int, num_classes: int, *, background: bool = False) -> None:
        super().__init__()
        self.maps = ClassMaps(in_channels, num_classes, background=background)

    @property
    def pooled_weight(self) -> Tensor | None:
        """None: the head is not linear in the mean features."""
        return None

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, K]`` of features ``[N, D, h, w]``."""
        logits: Tensor = self.maps(features).amax(dim=(2, 3))
        return logits

    def class_maps(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the maps that are pooled, of one class each, ``[N, h, w]``."""
        return self.maps.of_labels(features, labels)


class LogSumExp(nn.Module):
    """A soft maximum of each class's map (Pinheiro and Collobert, arXiv:1411.6228).

    ``(1/r) log mean_p exp(r x_p)``: the mean for small ``sharpness`` r, the maximum for large.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, background: bool = False, sharpness: float = 10.0
    ) -> None:
        super().__init__()
        self.maps = ClassMaps(in_channels, num_classes, background=background)
        self.sharpness = sharpness

    @property
    def pooled_weight(self) -> Tensor | None:
        """None: the head is not linear in the mean features."""
        return None

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, K]`` of features ``[N, D, h, w]``."""
        maps = self.maps(features).flatten(2)
        logits: Tensor = ((self.sharpness * maps).logsumexp(dim=2) - math.log(maps.shape[2])) / self.sharpness
        return logits

    def class_maps(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the maps that are pooled, of one class each, ``[N, h, w]``."""
        return self.maps.of_labels(features, labels)


class Wildcat(nn.Module):
    """The mean of the highest pixels and, as negative evidence, of the lowest (WILDCAT, Durand et al., CVPR 2017).

    ``(mean of the top 50 % + 0.6 mean of the lowest 10 %) / 2`` of each class's map, the mean of 5 modalities; at least
    one pixel each. The lowest pixels are negative evidence: regions that speak against a class lower its score.
    """

    TOP, LOWEST, ALPHA, MODALITIES = 0.5, 0.1, 0.6, 5

    def __init__(self, in_channels: int, num_classes: int, *, background: bool = False) -> None:
        super().__init__()
        self.maps = ClassMaps(in_channels, num_classes, background=background, modalities=self.MODALITIES)

    @property
    def pooled_weight(self) -> Tensor | None:
        """None: the head is not linear in the mean features."""
        return None

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, K]`` of features ``[N, D, h, w]``."""
        values = self.maps(features).flatten(2)
        top, lowest = (max(1, round(share * values.shape[2])) for share in (self.TOP, self.LOWEST))
        for_it = values.topk(top, dim=2, sorted=False).values.mean(dim=2)
        against = values.topk(lowest, dim=2, largest=False, sorted=False).values.mean(dim=2)
        logits: Tensor = (for_it + self.ALPHA * against) / 2
        return logits

    def class_maps(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the maps that are pooled, the mean over modalities, of one class each, ``[N, h, w]``."""
        return self.maps.of_labels(features, labels)


class AttentionMil(nn.Module):
    """The mean of the pixels' features by a learnt attention, then a linear layer (Ilse et al., arXiv:1802.04712).

    ``a = softmax_p(u tanh(V A_p))``, one attention for all classes; there is no background class.
    """

    HIDDEN = 128

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        _check_sizes(in_channels, num_classes)
        self.hidden = nn.Conv2d(in_channels, self.HIDDEN, 1)
        _initialise(self.hidden)
        self.attend = nn.Conv2d(self.HIDDEN, 1, 1, bias=False)
        _initialise(self.attend)
        self.linear = nn.Linear(in_channels, num_classes)
        _initialise(self.linear)

    @property
    def pooled_weight(self) -> Tensor | None:
        """None: the head is not linear in the mean features."""
        return None

    def attention(self, features: Tensor) -> Tensor:
        """Return the attention ``[N, h, w]`` on features ``[N, D, h, w]``; each map sums to 1.

        Raises:
            ValueError: another shape.
        """
        _check_features(features, self.linear.in_features)
        scores: Tensor = self.attend(self.hidden(features).tanh())[:, 0]
        flat: Tensor = scores.flatten(1).softmax(dim=1)
        return flat.reshape(scores.shape)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, K]`` of features ``[N, D, h, w]``."""
        attention = self.attention(features)
        logits: Tensor = self.linear(torch.einsum("nhw,ndhw->nd", attention.to(features.dtype), features))
        return logits

    def class_maps(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the contribution of each pixel to the logit of one class each, ``a_p w A_p``, ``[N, h, w]``."""
        weight = self.linear.weight.to(features.dtype)[labels]
        return self.attention(features).to(features.dtype) * torch.einsum("nd,ndhw->nhw", weight, features)


ClassHead = Wgap | Gap | MaxPool | LogSumExp | Wildcat | AttentionMil | ConvGap | Acol

POOLINGS: Final[Mapping[str, Callable[..., ClassHead]]] = MappingProxyType(
    {
        "wgap": Wgap,
        "gap": Gap,
        "max": MaxPool,
        "lse": LogSumExp,
        "wildcat": Wildcat,
        "attention": AttentionMil,
        "convgap": ConvGap,
    }
)
"""The poolings by their name in settings: ``POOLINGS[name](in_channels, num_classes)``."""

HEADS: Final[Mapping[str, Callable[..., ClassHead]]] = MappingProxyType({**POOLINGS, "acol": Acol})
"""The poolings, and the head that has its own training step."""

WITH_BACKGROUND: Final = ("gap", "max", "lse", "wildcat")
"""The poolings that take ``background=True``: a map for pixels of no class."""


def _initialise(layer: nn.Linear | nn.Conv2d) -> None:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _check_sizes(in_channels: int, num_classes: int) -> None:
    if in_channels < 1 or num_classes < 1:
        raise ValueError(f"in_channels and num_classes must be 1 or more, got {in_channels} and {num_classes}")


def _check_features(features: Tensor, channels: int) -> None:
    if features.ndim != 4 or features.shape[1] != channels:
        raise ValueError(f"features must be [N, {channels}, h, w], got {list(features.shape)}")
