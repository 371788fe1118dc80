"""IS-CAM: Score-CAM averaged over masks that grow step by step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tcam.model.cam.inputs import CamInputs
from tcam.model.cam.masked_scores import score_weighted_cam


@dataclass(frozen=True, slots=True)
class IsCam:
    """IS-CAM maps (Naidu et al., arXiv:2010.03023): Score-CAM whose score is the mean over growing masks.

    The mask of step i is ``sum_{j<=i} j / steps`` times that of the channel, for i in 1..steps: ``steps`` passes
    through the whole network for each channel.

    Attributes:
        steps: number of integration steps.
        batch: masked images per forward pass.
    """

    steps: int = 10
    batch: int = 32

    def __call__(self, inputs: CamInputs) -> Tensor:
        """Return ``[N, h, w]``, 0 or more."""
        factors = [i * (i + 1) / (2 * self.steps) for i in range(1, self.steps + 1)]
        return score_weighted_cam(inputs, [partial(torch.mul, factor) for factor in factors], batch=self.batch)
