"""Resize, crop and flip the frames of a clip and their maps in the same way, and keep the geometry."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tcam.types import FrameGeometry, Size


@dataclass(frozen=True, slots=True)
class CropFlip:
    """Cut ``size`` at row ``top`` and column ``left`` out of a picture of size ``resized``, then maybe mirror it.

    Raises:
        ValueError: the cut does not lie inside ``resized``.
    """

    resized: Size
    top: int
    left: int
    size: Size
    flipped: bool

    def __post_init__(self) -> None:
        inside = 0 <= self.top <= self.resized[0] - self.size[0] and 0 <= self.left <= self.resized[1] - self.size[1]
        if not inside or min(self.size) < 1:
            raise ValueError(f"a cut of {self.size} at {(self.top, self.left)} does not fit into {self.resized}")

    def frames(self, frames: Tensor) -> Tensor:
        """Cut and mirror ``[T, 3, *resized]`` frames to ``[T, 3, *size]``.

        Raises:
            ValueError: another shape.
        """
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (3, *self.resized):
            raise ValueError(f"frames must be [T, 3, {self.resized[0]}, {self.resized[1]}], got {list(frames.shape)}")
        return self._cut(frames)

    def maps(self, maps: Tensor) -> Tensor:
        """Resize ``[T, h, w]`` maps to ``resized`` (bilinear), then cut and mirror them like the frames.

        Returns:
            float ``[T, *size]``.

        Raises:
            ValueError: another shape, or not floating point.
        """
        if maps.ndim != 3 or not maps.is_floating_point():
            raise ValueError(f"maps must be floating point [T, h, w], got {maps.dtype} {list(maps.shape)}")
        grown = F.interpolate(maps[:, None].float(), self.resized, mode="bilinear", align_corners=False)
        return self._cut(grown[:, 0])

    def geometry(self, original: Size) -> FrameGeometry:
        """Return the geometry for an original frame of this size, which maps boxes back to it."""
        return FrameGeometry(original, self.resized, (self.top, self.left), self.size, self.flipped)

    def _cut(self, pictures: Tensor) -> Tensor:
        cut = pictures[..., self.top : self.top + self.size[0], self.left : self.left + self.size[1]]
        return cut.flip(-1) if self.flipped else cut.contiguous()


def sample_crop_flip(resized: Size, size: Size, generator: torch.Generator) -> CropFlip:
    """Draw a crop position, uniformly, and a flip with probability one half.

    Raises:
        ValueError: ``size`` is larger than ``resized``.
    """
    if size[0] > resized[0] or size[1] > resized[1]:
        raise ValueError(f"the cut {size} is larger than the picture {resized}")
    top = int(torch.randint(resized[0] - size[0] + 1, (), generator=generator))
    left = int(torch.randint(resized[1] - size[1] + 1, (), generator=generator))
    return CropFlip(resized, top, left, size, bool(torch.randint(2, (), generator=generator)))


def whole_frame(size: Size) -> CropFlip:
    """Return the transform of inference: nothing cut, nothing mirrored."""
    return CropFlip(size, 0, 0, size, flipped=False)
