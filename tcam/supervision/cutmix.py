"""CutMix: a window of each training frame is replaced by another frame, and the tags are mixed by area."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tcam.types import Size


@dataclass(frozen=True, slots=True)
class MixedFrames:
    """Frames with a window of another frame each.

    Attributes:
        frames: uint8 ``[N, 3, H, W]``.
        labels: int64 ``[N]``, the tags of the frames.
        window_labels: int64 ``[N]``, the tags of the windows.
        own_share: share of the pixels outside the window, in 0..1.
    """

    frames: Tensor
    labels: Tensor
    window_labels: Tensor
    own_share: float

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Return ``l CE(logits, labels) + (1 - l) CE(logits, window_labels)``, ``l`` the own share; a scalar."""
        own, other = (functional.cross_entropy(logits, labels) for labels in (self.labels, self.window_labels))
        return self.own_share * own + (1 - self.own_share) * other


@dataclass(frozen=True, slots=True)
class CutMix:
    """Pastes a window of another frame into each frame of a batch (Yun et al., ICCV 2019, arXiv:1905.04899).

    The batch has one window: ``l ~ Beta(1, 1)``, sides ``W sqrt(1 - l)`` and ``H sqrt(1 - l)`` around a uniform centre,
    clipped to the frame. Its content is the batch in another order. The tags are weighted by the pixels that are really
    visible. Frames are never mixed at inference.

    If several processes share a batch, each takes windows from its own frames only, so results depend on the number of
    processes. A process with one frame pastes the frame into itself, which changes nothing.

    Attributes:
        probability: probability of mixing a batch: 1 for ImageNet, 0.5 for CIFAR in the paper.
    """

    probability: float = 1.0

    def __call__(
        self, frames: Tensor, labels: Tensor, generator: torch.Generator, *, first: int = 0, total: int | None = None
    ) -> MixedFrames:
        """Mix uint8 frames ``[N, 3, H, W]`` with labels ``[N]``.

        Args:
            frames: the frames; not changed in place.
            labels: one for each frame.
            generator: source of randomness, on the frames' device.
            first: position of these frames in a batch of ``total``; every part of a batch draws the same numbers.
            total: size of the batch; None if these frames are the batch.

        Raises:
            ValueError: another shape or dtype.
        """
        if frames.ndim != 4 or frames.dtype != torch.uint8 or labels.shape != frames.shape[:1]:
            shapes = f"{frames.dtype} {list(frames.shape)} and {list(labels.shape)}"
            raise ValueError(f"frames must be uint8 [N, 3, H, W] and labels [N], got {shapes}")
        count, _, height, width = frames.shape
        total = count if total is None else total
        luck = torch.rand(4 + total, generator=generator, device=generator.device)
        chance, own_share, *centre = luck[:4].tolist()
        if chance >= self.probability:
            return MixedFrames(frames, labels, labels, 1.0)
        other = luck[4 + first : 4 + first + count].argsort()
        rows, columns = window(own_share, (centre[0], centre[1]), (height, width))
        mixed = frames.clone()
        mixed[:, :, rows, columns] = frames[other][:, :, rows, columns]
        covered = (rows.stop - rows.start) * (columns.stop - columns.start)
        return MixedFrames(mixed, labels, labels[other], 1 - covered / (height * width))


def window(own_share: float, centre: tuple[float, float], size: Size) -> tuple[slice, slice]:
    """Return the rows and columns of a window that leaves a share of the frame visible.

    Args:
        own_share: the visible share of the pixels, in 0..1; it is larger if the window crosses the frame's edge.
        centre: (down, right) in 0..1 of the frame.
        size: of the frame.
    """
    spans = []
    for middle, length in zip(centre, size, strict=True):
        half = int(length * (1 - own_share) ** 0.5) // 2
        at = int(middle * length)
        spans.append(slice(max(at - half, 0), min(at + half, length)))
    return spans[0], spans[1]
