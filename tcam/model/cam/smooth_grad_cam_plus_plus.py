"""Smooth-GradCAM++: GradCAM++ with derivatives averaged over noisy images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tcam.model.cam.inputs import CamInputs, class_gradient, weigh


@dataclass(frozen=True, slots=True)
class SmoothGradCamPlusPlus:
    """Smooth-GradCAM++ maps (Omeiza et al., arXiv:1908.01224).

    The first, second and third derivatives of GradCAM++ are averages over noisy images; ``sum_p A_k`` and the weighted
    features are the image's own. All images of a batch get the same noise. A linear head over average pooling has
    the same gradient for every image: its maps are those of GradCAM++.

    Attributes:
        samples: noisy copies of each image.
        std: of the noise, in units of the network's input.
    """

    samples: int = 4
    std: float = 0.3

    def __call__(self, inputs: CamInputs) -> Tensor:
        """Return ``[N, h, w]``, 0 or more.

        Raises:
            ValueError: the inputs have no images.
        """
        if inputs.images is None or inputs.look is None:
            raise ValueError("Smooth-GradCAM++ needs the images and what comes before the layer")
        images = inputs.images()
        shape = (self.samples, *images.shape[1:])
        noise = torch.randn(shape, generator=inputs.generator).to(images) * self.std
        first, second, third = (torch.zeros_like(inputs.features) for _ in range(3))
        for one in noise:
            with torch.no_grad():
                features = inputs.look(images + one)
            gradient = class_gradient(inputs, features)
            first += gradient / self.samples
            second += gradient.square() / self.samples
            third += gradient.pow(3) / self.samples
        divisor = 2 * second + third * inputs.features.sum(dim=(2, 3), keepdim=True)
        weights = torch.where(divisor != 0, first.relu() * second / divisor, 0).sum(dim=(2, 3))
        return weigh(inputs.features, weights).relu()
