"""The localizer's complete loss as named terms: the interface of every method's loss, and the loss of TCAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tcam.supervision.losses import crf_energy, partial_cross_entropy, size_barrier, soft_cross_entropy
from tcam.types import IGNORE, ClipBatch, FrameOutput, LossTerms, PixelLabels


class Objective(Protocol):
    """The interface of a method's loss."""

    def __call__(self, output: FrameOutput, batch: ClipBatch, labels: PixelLabels, *, barrier_t: float) -> LossTerms:
        """Return the loss terms.

        Args:
            output: network output for the N = B T frames of the clips, clip by clip, with ``map_logits``.
            batch: B clips of T frames.
            labels: pseudo-labels of the same N maps.
            barrier_t: sharpness of the size barrier; grows over training.

        Raises:
            ValueError: other shapes, or a network without maps.
        """


def clip_maps(output: FrameOutput, batch: ClipBatch) -> Tensor:
    """Return the map logits in the shape of the clips, ``[B, T, 2, H, W]``.

    Raises:
        ValueError: a network without a decoder, or maps that are not of these clips.
    """
    maps, frames = output.map_logits, batch.frames
    expected = [frames.shape[0] * frames.shape[1], 2, *frames.shape[3:]]
    if maps is None or list(maps.shape) != expected:
        found = "none (a network without a decoder)" if maps is None else list(maps.shape)
        raise ValueError(f"map_logits must be {expected} for frames {list(frames.shape)}, got {found}")
    return maps.reshape(*frames.shape[:2], *maps.shape[1:])


def frame_tags(batch: ClipBatch) -> Tensor:
    """Return the tag of every frame, int64 ``[N]``, N = B T: that of its clip."""
    return batch.label.repeat_interleave(batch.frames.shape[1])


@dataclass(frozen=True, slots=True)
class TcamObjective:
    """TCAM's loss: seeds + CRF + size (arXiv:2208.14542); a term of weight 0 is left out.

    The soft cross-entropy is an addition to the paper.

    Attributes:
        seed_weight: of the partial cross-entropy.
        crf_weight: of the CRF energy; small, as that counts pairs of pixels.
        size_weight: of the size barrier.
        sigma_rgb: reach of the CRF in colour levels.
        sigma_xy: reach of the CRF in pixels.
        soft_weight: of the cross-entropy with the CAM at every pixel.
    """

    seed_weight: float
    crf_weight: float
    size_weight: float
    sigma_rgb: float
    sigma_xy: float
    soft_weight: float = 0.0

    def __call__(self, output: FrameOutput, batch: ClipBatch, labels: PixelLabels, *, barrier_t: float) -> LossTerms:
        """Return the loss terms; each of the N = B T frames counts the same. See ``Objective``."""
        map_logits, frames = clip_maps(output, batch).flatten(0, 1), batch.frames.flatten(0, 1)
        count = len(map_logits)
        losses = LossTerms({}, {})
        if self.seed_weight:
            seeds, seen = partial_cross_entropy(map_logits, labels), (labels.labels != IGNORE).sum()
            losses = losses.plus("seeds", seeds, weight=self.seed_weight, count=seen)
        if self.soft_weight:
            if batch.cams is None:
                raise ValueError("soft targets need clips with CAMs")
            soft = soft_cross_entropy(map_logits, batch.cams.flatten(0, 1))
            losses = losses.plus("soft", soft, weight=self.soft_weight, count=count)
        if self.crf_weight:
            energies = crf_energy(map_logits, frames, sigma_rgb=self.sigma_rgb, sigma_xy=self.sigma_xy)
            losses = losses.plus("crf", energies.sum() / max(count, 1), weight=self.crf_weight, count=count)
        if self.size_weight:
            size = size_barrier(map_logits, barrier_t)
            losses = losses.plus("size", size, weight=self.size_weight, count=count)
        return losses
