"""What an objective is called with, made of plain tensors; a helper of these tests."""

from __future__ import annotations

import torch
from torch import Tensor

from tcam.types import ClipBatch, FrameOutput


def as_clips(
    map_logits: Tensor,
    frames: Tensor,
    *,
    tags: Tensor | None = None,
    class_logits: Tensor | None = None,
    cams: Tensor | None = None,
    affinity: Tensor | None = None,
) -> tuple[FrameOutput, ClipBatch]:
    """Give output and batch of maps ``[B, T, 2, H, W]`` and frames ``[B, T, 3, H, W]``; the tags are 0 if left out."""
    clips, length = frames.shape[:2]
    scores = torch.zeros(clips * length, 2) if class_logits is None else class_logits
    output = FrameOutput(scores, torch.zeros(clips * length, 1, 1, 1), map_logits.flatten(0, 1), affinity=affinity)
    label = torch.zeros(clips, dtype=torch.int64) if tags is None else tags
    index = torch.zeros(clips, length, dtype=torch.int64)
    return output, ClipBatch(frames, cams, index, label, ("",) * clips)


def random_case(clips: int = 2, length: int = 1, side: int = 8, dtype: torch.dtype = torch.float32):
    """Give map logits with a gradient, frames, and labels of every pixel."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(clips, length, 2, side, side, generator=generator, dtype=dtype).requires_grad_()
    frames = torch.randint(0, 256, (clips, length, 3, side, side), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 2, (clips * length, side, side), generator=generator).to(torch.uint8)
    return logits, frames, labels
