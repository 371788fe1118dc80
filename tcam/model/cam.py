"""Class activation maps: closed forms for a linear head over average-pooled features, and the gradient form."""

from __future__ import annotations

import torch
from torch import Tensor


def cam(features: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Weigh the features by the weights of one class each (CAM, arXiv:1512.04150): ``M = sum_k w_k A_k``.

    Args:
        features: the head's input, ``[N, D, h, w]``.
        weight: of the linear head, ``[K, D]``; its bias plays no part.
        labels: int64 ``[N]``, the class to map.

    Returns:
        ``[N, h, w]``, any sign; see ``normalize_cam``.

    Raises:
        ValueError: other shapes.
    """
    return torch.einsum("nd,ndhw->nhw", _class_weights(features, weight, labels), features)


def layer_cam(features: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Weigh the features by the positive weights of one class each: ``M = relu(sum_k relu(w_k) A_k)``.

    LayerCAM (Jiang et al., TIP 2021) weighs by the positive part of the gradient; with a linear head over average
    pooling that is ``relu(w_k) / hw`` everywhere, so this is its map up to a factor, without a backward pass.

    Args:
        features: the head's input, ``[N, D, h, w]``.
        weight: of the linear head, ``[K, D]``.
        labels: int64 ``[N]``, the class to map.

    Returns:
        ``[N, h, w]``, 0 or more.

    Raises:
        ValueError: other shapes.
    """
    positive = _class_weights(features, weight, labels).relu()
    return torch.einsum("nd,ndhw->nhw", positive, features).relu()


def gradient_layer_cam(features: Tensor, scores: Tensor) -> Tensor:
    """Make LayerCAM maps through any head: ``M = relu(sum_k relu(dY / dA_k) A_k)``, pixel by pixel.

    Args:
        features: ``[N, D, h, w]``, part of the graph of ``scores``.
        scores: ``[N]``, the logit of each image's class, before softmax.

    Returns:
        ``[N, h, w]``, 0 or more, detached.

    Raises:
        ValueError: other shapes, or ``features`` outside any graph.
    """
    if features.ndim != 4 or scores.shape != features.shape[:1]:
        raise ValueError(f"expected features [N, D, h, w] and scores [N], got {_shapes(features, scores)}")
    if not features.requires_grad:
        raise ValueError("features must require a gradient: compute them, or the scores from them, with grad enabled")
    (gradient,) = torch.autograd.grad(scores.sum(), features, retain_graph=True)
    return (gradient.relu() * features.detach()).sum(dim=1).relu()


def normalize_cam(maps: Tensor) -> Tensor:
    """Stretch each map to 0..1; a constant map becomes 0.

    Args:
        maps: ``[N, h, w]``.

    Returns:
        ``[N, h, w]``.

    Raises:
        ValueError: another shape.
    """
    if maps.ndim != 3:
        raise ValueError(f"maps must be [N, h, w], got {list(maps.shape)}")
    shifted = maps - maps.amin(dim=(1, 2), keepdim=True)
    return (shifted / shifted.amax(dim=(1, 2), keepdim=True)).nan_to_num(nan=0.0, posinf=1.0, neginf=0.0)


def _class_weights(features: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    shapes = _shapes(features, weight, labels)
    if features.ndim != 4 or weight.ndim != 2 or features.shape[1] != weight.shape[1]:
        raise ValueError(f"expected features [N, D, h, w], weight [K, D] and labels [N], got {shapes}")
    if labels.shape != features.shape[:1]:
        raise ValueError(f"expected features [N, D, h, w], weight [K, D] and labels [N], got {shapes}")
    return weight[labels]


def _shapes(*tensors: Tensor) -> str:
    return ", ".join(str(list(tensor.shape)) for tensor in tensors)
