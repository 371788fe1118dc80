"""NEGEV's loss: in frames known to hold no object, every pixel is labelled as background."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn import functional

from tcam.precision import at_least_float32
from tcam.supervision.objective import Objective, clip_maps
from tcam.types import NO_CLASS, ClipBatch, FrameOutput, LossTerms, PixelLabels


def negative_evidence(map_logits: Tensor) -> Tensor:
    """Return the mean of ``-log S^0(p)`` over all pixels of frames without an object (NEGEV, arXiv:2201.02445).

    Args:
        map_logits: ``[N, 2, H, W]``; 0 is background.

    Returns:
        A scalar; 0, with a gradient of 0, where there is no frame.

    Raises:
        ValueError: another shape.
    """
    if map_logits.ndim != 4 or map_logits.shape[1] != 2:
        raise ValueError(f"map_logits must be [N, 2, H, W], got {list(map_logits.shape)}")
    wide = at_least_float32(map_logits)
    errors = functional.softplus(wide[:, 1] - wide[:, 0])  # -log of the softmax of two
    return errors.sum() / max(errors.numel(), 1)


@dataclass(frozen=True, slots=True)
class NegevObjective:
    """The loss of frames with an object, and negative evidence from frames without one (NEGEV, arXiv:2201.02445).

    The negative evidence is a separate term: seeds are some ten pixels per frame, so in one mean with them all the
    pixels of a frame without an object would dominate.

    Attributes:
        base: the terms for frames with an object; the paper uses the seeds only. Frames without an object are left out,
            because a size barrier would ask for one.
        weight: weight of the negative evidence.
    """

    base: Objective
    weight: float

    def __call__(self, output: FrameOutput, batch: ClipBatch, labels: PixelLabels, *, barrier_t: float) -> LossTerms:
        """Return the loss terms; clips with the label ``NO_CLASS`` hold no object. See ``Objective``."""
        maps, empty = clip_maps(output, batch), batch.label == NO_CLASS
        frames_empty = empty.repeat_interleave(maps.shape[1])
        losses = self.base(
            replace(output, map_logits=maps[~empty].flatten(0, 1)),
            replace(batch, frames=batch.frames[~empty], label=batch.label[~empty]),
            PixelLabels(labels.labels[~frames_empty]),
            barrier_t=barrier_t,
        )
        negatives = maps[empty].flatten(0, 1)
        return losses.plus("negatives", negative_evidence(negatives), weight=self.weight, count=len(negatives))
