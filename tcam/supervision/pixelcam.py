"""PixelCAM's loss: the pixel classifier and the image classifier learn together."""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn import functional

from tcam.supervision.objective import Objective, frame_tags
from tcam.types import ClipBatch, FrameOutput, LossTerms, PixelLabels


@dataclass(frozen=True, slots=True)
class PixelCamObjective:
    """``CE(y, g(F)) + lambda mean_p CE(Y_p, f(F_p))`` (PixelCAM, arXiv:2503.24135).

    F are the encoder's features, g the class head, f a 1 x 1 convolution to background and foreground, Y the seeds.
    Both gradients reach the encoder. ``lambda`` is the weight of the seeds in ``base``, which may also have a CRF and a
    size term; the published loss has neither.

    Attributes:
        base: the terms of the maps, as in TCAM.
    """

    base: Objective

    def __call__(self, output: FrameOutput, batch: ClipBatch, labels: PixelLabels, *, barrier_t: float) -> LossTerms:
        """Return the loss terms; see ``tcam.supervision.objective.Objective``."""
        losses = self.base(output, batch, labels, barrier_t=barrier_t)
        tags = frame_tags(batch)
        classes = functional.cross_entropy(output.class_logits, tags)
        return losses.plus("classes", classes, weight=1.0, count=len(tags))
