"""The complete loss of CoLo-CAM, as named terms."""

from __future__ import annotations

from dataclasses import dataclass

from colocam.colour_crf import joint_colour_energy
from tcam.supervision.objective import TcamObjective, clip_maps
from tcam.types import ClipBatch, FrameOutput, LossTerms, PixelLabels


@dataclass(frozen=True, slots=True)
class ColocamObjective:
    """CoLo-CAM's loss: TCAM's terms, frame by frame, and the joint colour term of sequences (arXiv:2303.09044).

    Attributes:
        base: the terms of TCAM.
        joint_weight: weight of the joint term; 0 leaves it out.
        joint_sigma_rgb: reach of the joint term in colour levels.
        adaptive: divide the energy of each sequence by its magnitude; the weight is then of order 1, else of 1e-9.
    """

    base: TcamObjective
    joint_weight: float
    joint_sigma_rgb: float
    adaptive: bool

    def __call__(self, output: FrameOutput, batch: ClipBatch, labels: PixelLabels, *, barrier_t: float) -> LossTerms:
        """Return the loss terms; the frames of a clip are a sequence. See ``tcam.supervision.objective.Objective``."""
        losses = self.base(output, batch, labels, barrier_t=barrier_t)
        if not self.joint_weight:
            return losses
        maps = clip_maps(output, batch)
        joint = joint_colour_energy(maps, batch.frames, sigma_rgb=self.joint_sigma_rgb, adaptive=self.adaptive)
        return losses.plus("joint", joint, weight=self.joint_weight, count=len(maps))
