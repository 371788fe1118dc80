"""The pretrained ImageNet classifier, and how much more probable its classes are with a tag than without."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

SMOOTHING: Final = 1e-4
"""Added to p(k), so that classes that are hardly ever seen do not count by noise: a tenth of a uniform p(k) of 1000."""


class TagPrior(nn.Module):
    """A linear classifier of K0 known classes over the mean features, and ``p(k | tag) / p(k)`` for K tags.

    Nothing in it is trained. Built empty, it maps every known class alike; load a checkpoint, or fill it with
    ``set_classifier`` and ``set_ratio``.

    Attributes:
        weight: ``[K0, D]``.
        bias: ``[K0]``.
        ratio: ``p(k | tag) / p(k)``, ``[K, K0]``, 0 or more.
    """

    weight: Tensor
    bias: Tensor
    ratio: Tensor

    def __init__(self, channels: int, num_tags: int, *, known: int = 1000) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(known, channels))
        self.register_buffer("bias", torch.zeros(known))
        self.register_buffer("ratio", torch.ones(num_tags, known))

    def set_classifier(self, weight: Tensor, bias: Tensor) -> None:
        """Copy the weights ``[K0, D]`` and biases ``[K0]`` of the pretrained classifier, in any precision."""
        self.weight.copy_(weight)
        self.bias.copy_(bias)

    def set_ratio(self, per_tag: Tensor) -> None:
        """Copy the ratio that belongs to ``p(k | tag)``, ``[K, K0]``; see ``ratio_of``."""
        self.ratio.copy_(ratio_of(per_tag))

    def probabilities(self, features: Tensor) -> Tensor:
        """Return ``p(k | frame)``, ``[N, K0]``, of features ``[N, D, h, w]``."""
        weight, bias = self.weight.to(features.dtype), self.bias.to(features.dtype)
        return functional.linear(features.mean(dim=(2, 3)), weight, bias).softmax(dim=1)

    def class_shares(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return ``w_k``, proportional to ``p(k | frame) p(k | tag) / p(k)``, ``[N, K0]``; each row sums to 1.

        Where no class of the frame goes with the tag, ``w_k = p(k | frame)``.
        """
        probable = self.probabilities(features)
        joint = probable * self.ratio.to(probable.dtype)[labels]
        total = joint.sum(dim=1, keepdim=True)
        return torch.where(total > 0, joint / total, probable)

    def channel_weights(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the CAM's weights ``sum_k w_k W_k``, ``[N, D]``, of features ``[N, D, h, w]`` and tags ``[N]``."""
        return self.class_shares(features, labels) @ self.weight.to(features.dtype)


def ratio_of(per_tag: Tensor) -> Tensor:
    """Return ``p(k | tag) / p(k)``, ``[K, K0]``; ``p(k)`` is the mean over tags that have training videos.

    Args:
        per_tag: ``p(k | tag)``, ``[K, K0]``; rows of zeros are tags without training videos, whose ratio is 1.
    """
    seen = per_tag.sum(dim=1) > 0
    prior = per_tag.sum(dim=0) / seen.sum().clamp(min=1)
    return torch.where(seen[:, None], per_tag / (prior + SMOOTHING), 1.0)
