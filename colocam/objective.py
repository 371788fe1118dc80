"""The complete loss of CoLo-CAM, as named terms."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from colocam.colour_crf import joint_colour_energy
from colocam.feature_energy import joint_feature_energy
from tcam.supervision.objective import TcamObjective, clip_maps
from tcam.types import ClipBatch, FrameOutput, LossTerms, PixelLabels


@dataclass(frozen=True, slots=True)
class FeatureSpace:
    """The joint term compares features of the backbone, not colours.

    Attributes:
        sigma: reach of the kernel.
        components: principal components of the features.
    """

    sigma: float
    components: int


@dataclass(frozen=True, slots=True)
class ColocamObjective:
    """CoLo-CAM's loss: TCAM's terms, frame by frame, and the joint term of sequences (arXiv:2303.09044).

    The published joint term compares colours. With ``features`` it compares features of the backbone.

    Attributes:
        base: the terms of TCAM.
        joint_weight: weight of the joint term; 0 leaves it out.
        joint_sigma_rgb: reach of the joint term in colour levels; not used with ``features``.
        adaptive: divide the energy of each sequence by its magnitude; the weight is then of order 1, else of 1e-9.
        features: how features are compared; None: colours are.
    """

    base: TcamObjective
    joint_weight: float
    joint_sigma_rgb: float
    adaptive: bool
    features: FeatureSpace | None = None

    def __call__(self, output: FrameOutput, batch: ClipBatch, labels: PixelLabels, *, barrier_t: float) -> LossTerms:
        """Return the loss terms; the frames of a clip are a sequence. See ``tcam.supervision.objective.Objective``."""
        losses = self.base(output, batch, labels, barrier_t=barrier_t)
        if not self.joint_weight:
            return losses
        joint = self._joint(output, batch)
        return losses.plus("joint", joint, weight=self.joint_weight, count=len(batch.frames))

    def _joint(self, output: FrameOutput, batch: ClipBatch) -> Tensor:
        maps = clip_maps(output, batch)
        if self.features is None:
            return joint_colour_energy(maps, batch.frames, sigma_rgb=self.joint_sigma_rgb, adaptive=self.adaptive)
        if output.affinity is None:
            raise ValueError("the joint term of features needs an output with affinity features, got none")
        return joint_feature_energy(
            maps,
            output.affinity.reshape(*maps.shape[:2], *output.affinity.shape[1:]),
            sigma=self.features.sigma,
            components=self.features.components,
            adaptive=self.adaptive,
        )
