"""CoLo-CAM's whole loss as named terms."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from colocam.color_crf import joint_color_energy
from tcam.supervision.objective import TcamObjective
from tcam.types import LossTerms, PixelLabels


@dataclass(frozen=True, slots=True)
class ColocamObjective:
    """CoLo-CAM's loss: TCAM's terms, frame by frame, and the joint colour term of sequences (arXiv:2303.09044).

    Attributes:
        base: TCAM's terms.
        joint_weight: of the joint term; 0 leaves it out.
        joint_sigma_rgb: its reach in colour levels.
        adaptive: divide the energy of each sequence by its size; the weight then is of order 1, else of 1e-9.
    """

    base: TcamObjective
    joint_weight: float
    joint_sigma_rgb: float
    adaptive: bool

    def __call__(self, map_logits: Tensor, frames: Tensor, labels: PixelLabels, *, barrier_t: float) -> LossTerms:
        """Measure the terms.

        Args:
            map_logits: ``[B, T, 2, H, W]``, of B sequences of T frames.
            frames: uint8 ``[B, T, 3, H, W]``, RGB.
            labels: of the N = B T maps, a sequence's frames one after another.
            barrier_t: sharpness of the size barrier; grows over training.

        Raises:
            ValueError: other shapes.
        """
        base = self.base(map_logits, frames, labels, barrier_t=barrier_t)
        if not self.joint_weight:
            return base
        joint = joint_color_energy(map_logits, frames, sigma_rgb=self.joint_sigma_rgb, adaptive=self.adaptive)
        return LossTerms(
            {**base.terms, "joint": joint},
            {**base.weights, "joint": self.joint_weight},
            {**base.counts, "joint": len(map_logits)},
        )
