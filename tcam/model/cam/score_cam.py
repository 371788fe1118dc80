"""Score-CAM: channels weighted by the class score of the image masked by them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tcam.model.cam.inputs import CamInputs
from tcam.model.cam.masked_scores import score_weighted_cam


@dataclass(frozen=True, slots=True)
class ScoreCam:
    """Score-CAM maps (Wang et al., arXiv:1910.01279): ``relu(sum_k softmax_k(Y_c(U(A_k) X)) A_k)``.

    One pass through the whole network for each channel.

    Attributes:
        batch: masked images per forward pass.
    """

    batch: int = 32

    def __call__(self, inputs: CamInputs) -> Tensor:
        """Return ``[N, h, w]``, 0 or more."""
        return score_weighted_cam(inputs, [lambda masks: masks], batch=self.batch)
