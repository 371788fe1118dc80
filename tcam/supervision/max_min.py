"""Max-min uncertainty: the foreground alone is classified with confidence, the background alone with none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from tcam.supervision.objective import Objective, clip_maps
from tcam.supervision.pixelcam import frame_tags
from tcam.types import ClipBatch, FrameOutput, LossTerms, PixelLabels

ScoreMasked = Callable[[Tensor, Tensor], Tensor]
"""Gives the class logits ``[N, K]`` of frames, uint8 ``[N, 3, H, W]``, seen through masks ``[N, H, W]`` in 0..1."""


def certainty(class_logits: Tensor) -> Tensor:
    """Measure how far class scores are from saying nothing: ``KL(p || u) = log K - H(p)``, u uniform.

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
    """Uncertainty least on the foreground, greatest on the background (Belharbi et al., arXiv:2011.07221).

    With S^1 and S^0 the maps of foreground and background, X the frame, y its tag and p the classifier:

        a mean_n -log p_y(X_n S_n^1)  +  b mean_n KL(p(X_n S_n^0) || u)  +  the terms of ``base``

    The cross-entropy asks for a foreground that the classifier is certain of, the divergence from the uniform u for a
    background that tells it nothing (entropy as high as can be), and the size barrier of ``base`` for both to be there.
    Two things differ from the paper: the classifier is the frozen one of the first stage and does not learn along, and
    what a mask hides has the mean colour, which the classifier was normalised to, not black.

    Attributes:
        base: TCAM's terms; the paper's are the size barrier alone.
        score: the classifier; the gradient goes through it to the masks.
        foreground_weight: a.
        background_weight: b.
    """

    base: Objective
    score: ScoreMasked
    foreground_weight: float
    background_weight: float

    def __call__(self, output: FrameOutput, batch: ClipBatch, labels: PixelLabels, *, barrier_t: float) -> LossTerms:
        """Measure the terms; see ``tcam.supervision.objective.Objective``."""
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
