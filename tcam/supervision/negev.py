"""NEGEV's loss: frames known to hold no object say what background looks like, at every pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn import functional

from tcam.precision import at_least_float32
from tcam.supervision.objective import Objective, clip_maps
from tcam.types import NO_CLASS, ClipBatch, FrameOutput, LossTerms, PixelLabels


def negative_evidence(map_logits: Tensor) -> Tensor:
    """Average ``-log S^0(p)`` over all pixels of frames without any object (NEGEV, arXiv:2201.02445).

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
    """The terms of frames with an object, and negative evidence from those without (NEGEV, arXiv:2201.02445).

    The second has a term of its own: among the seeds of the others, some ten pixels a frame, all the pixels of a frame
    would drown them.

    Attributes:
        base: the terms of frames with an object; the published one is that of the seeds. Other frames have no part in
            it, as a size barrier would ask for an object.
        weight: of the negative evidence.
    """

    base: Objective
    weight: float

    def __call__(self, output: FrameOutput, batch: ClipBatch, labels: PixelLabels, *, barrier_t: float) -> LossTerms:
        """Measure the terms; clips of the label ``NO_CLASS`` hold no object; see ``Objective``."""
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
