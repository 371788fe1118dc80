"""The inputs of CAM methods, and the steps that several methods share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tcam.model.heads.pooling import ClassHead
from tcam.model.tag_prior import TagPrior


@dataclass(frozen=True, slots=True)
class CamInputs:
    """N images, with the output of one layer of a network.

    Attributes:
        features: the layer's output, ``[N, D, h, w]``.
        labels: int64 ``[N]``, the class to map in each image.
        score: the network after the layer: ``[M, D, h, w]`` to class logits ``[M, K]``, for any M.
        head: the class head, if the layer is its input: it has class maps of its own, and perhaps a closed form.
        images: returns the network's input, float ``[N, 3, H, W]``; for methods that change it.
        look: the network up to the layer: such images ``[M, 3, H, W]`` to ``[M, D, h, w]``.
        generator: source of the noise that methods add to images.
        attention: attention of a vision transformer's class token to the pixels of the layer, ``[N, blocks, heads, h,
            w]``.
        prior: the ImageNet classifier of the pretrained weights, if the layer is its input too.
    """

    features: Tensor
    labels: Tensor
    score: Callable[[Tensor], Tensor]
    head: ClassHead | None = None
    images: Callable[[], Tensor] | None = None
    look: Callable[[Tensor], Tensor] | None = None
    generator: torch.Generator | None = None
    attention: Tensor | None = None
    prior: TagPrior | None = None

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            ValueError: others than above.
        """
        if self.features.ndim != 4 or self.labels.shape != self.features.shape[:1]:
            shapes = f"{list(self.features.shape)} and {list(self.labels.shape)}"
            raise ValueError(f"features must be [N, D, h, w] and labels [N], got {shapes}")


def from_head(features: Tensor, labels: Tensor, head: ClassHead, *, prior: TagPrior | None = None) -> CamInputs:
    """Return the inputs for a class head and its features, for methods that need no image."""
    return CamInputs(features, labels, head, head, prior=prior)


def pick(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logit of each image's class, ``[N]``, from logits ``[N, K]``."""
    return logits.gather(1, labels[:, None])[:, 0]


def weigh(features: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of channels: ``[N, D, h, w]`` and ``[N, D]`` to ``[N, h, w]``."""
    return torch.einsum("nd,ndhw->nhw", weights, features)


def class_gradient(inputs: CamInputs, features: Tensor | None = None) -> Tensor:
    """Return the gradient of each image's class logit by the layer's output: ``dY_c / dA``, ``[N, D, h, w]``.

    Works in inference mode, too; no gradients are computed before the layer.

    Args:
        inputs: the images.
        features: features of changed images; None takes those of the inputs.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        leaf = (inputs.features if features is None else features).detach().clone().requires_grad_()
        scores = pick(inputs.score(leaf), inputs.labels.clone())
        (gradient,) = torch.autograd.grad(scores.sum(), leaf)
    return gradient


def normalize_cam(maps: Tensor) -> Tensor:
    """Normalise each map to 0..1; a constant map becomes 0.

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
