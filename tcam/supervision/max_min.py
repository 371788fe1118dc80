"""Max-min uncertainty: the classifier should be certain about the foreground and uncertain about the background."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from tcam.supervision.objective import Objective, clip_maps, frame_tags
from tcam.types import ClipBatch, FrameOutput, LossTerms, PixelLabels

ScoreMasked = Callable[[Tensor, Tensor], Tensor]
"""Returns the class logits ``[N, K]`` of frames, uint8 ``[N, 3, H, W]``, under masks ``[N, H, W]`` in 0..1."""


def certainty(class_logits: Tensor) -> Tensor:
    """Return how far class scores are from uniform: ``KL(p || u) = log K - H(p)``, u uniform.

    Args:
        class_logits: ``[N, K]``.

    Returns:
        The mean over frames, a scalar between 0 (all classes alike) and ``log K`` (one class for certain); 0 where
        there is no frame.

    Raises:
        ValueError: another shape.
    """
    if class_logits.ndim != 2 or class_logits.shape[1] == 0:
        raise ValueError(f"class_logits must be [N, K], got {list(class_logits.shape)}")
    log_p = class_logits.log_softmax(dim=1)
    divergence = (log_p.exp() * log_p).sum(dim=1) + math.log(class_logits.shape[1])
    return divergence.sum() / max(len(divergence), 1)


@dataclass(frozen=True, slots=True)
class MaxMinObjective:
    """Lowest uncertainty on the foreground, highest on the background (Belharbi et al., arXiv:2011.07221).

    With S^1 and S^0 the maps of foreground and background, X the frame, y its tag and p the classifier:

        a mean_n -log p_y(X_n S_n^1)  +  b mean_n KL(p(X_n S_n^0) || u)  +  the terms of ``base``

    The cross-entropy makes the classifier certain about the foreground. The divergence from the uniform distribution u
    makes it uncertain about the background (maximum entropy). The size barrier of ``base`` keeps both from vanishing.
    Two things differ from the paper: the classifier is the frozen one of the first stage, and masked pixels have the
    mean colour of the normalisation instead of black.

    Attributes:
        base: the terms of TCAM; the paper uses only the size barrier.
        score: the classifier; the gradient flows through it to the masks.
        foreground_weight: a.
        background_weight: b.
    """

    base: Objective
    score: ScoreMasked
    foreground_weight: float
    background_weight: float

    def __call__(self, output: FrameOutput, batch: ClipBatch, labels: PixelLabels, *, barrier_t: float) -> LossTerms:
        """Return the loss terms; see ``tcam.supervision.objective.Objective``."""
        losses = self.base(output, batch, labels, barrier_t=barrier_t)
        shares = clip_maps(output, batch).flatten(0, 1).softmax(dim=1)
        frames, tags = batch.frames.flatten(0, 1), frame_tags(batch)
        if self.foreground_weight:
            error = functional.cross_entropy(self.score(frames, shares[:, 1]), tags)
            losses = losses.plus("foreground", error, weight=self.foreground_weight, count=len(tags))
        if self.background_weight:
            known = certainty(self.score(frames, shares[:, 0]))
            losses = losses.plus("background", known, weight=self.background_weight, count=len(tags))
        return losses
