"""Ablation-CAM: channels weighted by the drop of the class score without them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tcam.model.cam.inputs import CamInputs, pick, weigh


@dataclass(frozen=True, slots=True)
class AblationCam:
    """Makes Ablation-CAM maps (Desai and Ramaswamy, WACV 2020): the weight of channel k is ``Y_c - Y_c(A_k = 0)``.

    The published weight is divided by ``Y_c``. This is left out: it changes no normalised map, but inverts those with a
    negative logit.

    Attributes:
        batch: channels ablated in one pass.
    """

    batch: int = 32

    @torch.no_grad()
    def __call__(self, inputs: CamInputs) -> Tensor:
        """Return ``[N, h, w]``, 0 or more."""
        whole = pick(inputs.score(inputs.features), inputs.labels)
        weights = torch.zeros_like(inputs.features[:, :, 0, 0])
        for i, image in enumerate(inputs.features):
            active = image.flatten(1).any(dim=1).nonzero()[:, 0]  # the others change nothing
            for channels in torch.split(active, self.batch):
                without = image.repeat(len(channels), 1, 1, 1)
                without[torch.arange(len(channels), device=channels.device), channels] = 0
                weights[i, channels] = whole[i] - inputs.score(without)[:, inputs.labels[i]]
        return weigh(inputs.features, weights).relu()


def closed_ablation_cam(features: Tensor, weights: Tensor) -> Tensor:
    """Do the same for a linear head over average pooling, which loses ``w_k mean_p(A_k)`` with channel k.

    Args:
        features: the head's input, ``[N, D, h, w]``.
        weights: of each image's class, ``[N, D]``.
    """
    return weigh(features, weights * features.mean(dim=(2, 3))).relu()
