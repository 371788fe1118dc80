"""The localizer's whole loss as named terms."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tcam.supervision.losses import crf_energy, partial_cross_entropy, size_barrier
from tcam.types import IGNORE, LossTerms, PixelLabels


@dataclass(frozen=True, slots=True)
class TcamObjective:
    """TCAM's loss: seeds + CRF + size (arXiv:2208.14542); a term of weight 0 is left out.

    Attributes:
        seed_weight: of the partial cross-entropy.
        crf_weight: of the CRF energy; small, as that counts pairs of pixels.
        size_weight: of the size barrier.
        sigma_rgb: reach of the CRF in colour levels.
        sigma_xy: reach of the CRF in pixels.
    """

    seed_weight: float
    crf_weight: float
    size_weight: float
    sigma_rgb: float
    sigma_xy: float

    def __call__(self, map_logits: Tensor, frames: Tensor, labels: PixelLabels, *, barrier_t: float) -> LossTerms:
        """Measure the terms.

        Args:
            map_logits: ``[B, T, 2, H, W]``; each of the N = B T frames counts alike, whichever clip it is of.
            frames: uint8 ``[B, T, 3, H, W]``, RGB.
            labels: of the same N maps.
            barrier_t: sharpness of the size barrier; grows over training.

        Raises:
            ValueError: other shapes.
        """
        if map_logits.ndim != 5 or frames.shape[:2] != map_logits.shape[:2]:
            found = f"got {list(map_logits.shape)} and {list(frames.shape)}"
            raise ValueError(f"map_logits and frames must be [B, T, 2, H, W] and [B, T, 3, H, W], {found}")
        map_logits, frames = map_logits.flatten(0, 1), frames.flatten(0, 1)
        terms: dict[str, Tensor] = {}
        if self.seed_weight:
            terms["seeds"] = partial_cross_entropy(map_logits, labels)
        if self.crf_weight:
            energies = crf_energy(map_logits, frames, sigma_rgb=self.sigma_rgb, sigma_xy=self.sigma_xy)
            terms["crf"] = energies.sum() / max(len(energies), 1)
        if self.size_weight:
            terms["size"] = size_barrier(map_logits, barrier_t)
        weights = {"seeds": self.seed_weight, "crf": self.crf_weight, "size": self.size_weight}
        frames_and_pixels = dict.fromkeys(terms, len(map_logits)) | {"seeds": (labels.labels != IGNORE).sum()}
        return LossTerms(terms, {name: weights[name] for name in terms}, frames_and_pixels)
