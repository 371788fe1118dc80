"""SS-CAM: Score-CAM averaged over noisy masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tcam.model.cam.inputs import CamInputs
from tcam.model.cam.masked_scores import score_weighted_cam


@dataclass(frozen=True, slots=True)
class SsCam:
    """SS-CAM maps (Wang et al., arXiv:2006.14255): Score-CAM whose score is the mean over noisy masks.

    All channels and images of a batch get the same noise. ``samples`` passes through the whole network for each
    channel: with a ResNet-50 hours per frame on a CPU.

    Attributes:
        samples: noisy masks of each channel.
        std: of the noise; masks are 0..1.
        batch: masked images in one pass.
    """

    samples: int = 35
    std: float = 2.0
    batch: int = 32

    def __call__(self, inputs: CamInputs) -> Tensor:
        """Return ``[N, h, w]``, 0 or more.

        Raises:
            ValueError: the inputs have no images.
        """
        if inputs.images is None:
            raise ValueError("SS-CAM needs the images")
        images = inputs.images()
        shape = (self.samples, *images.shape[2:])
        noise = torch.randn(shape, generator=inputs.generator).to(images) * self.std
        return score_weighted_cam(inputs, [partial(torch.add, one) for one in noise], batch=self.batch)
