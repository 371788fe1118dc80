"""Hide-and-Seek: hide parts of the training frames, so that the classifier learns more parts of the object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class HideAndSeek:
    """Hides random squares of frames (Singh and Lee, ICCV 2017, arXiv:1704.04232; its mixed patch sizes).

    For each frame a patch side is drawn, or with the same probability none. The frame is cut into a grid of such
    patches, and each patch is hidden at random. Hidden pixels get the mean colour of the pretraining images, which
    keeps the mean activation of the first layer as at test time (section 3.2). Nothing is hidden at inference.

    Attributes:
        patches: patch sides in pixels; the paper's are for frames of 224 x 224.
        hide: probability that a patch is hidden.
    """

    patches: tuple[int, ...] = (16, 32, 44, 56)
    hide: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: no patch side, one below 1, or a chance outside 0..1.
        """
        if not self.patches or min(self.patches) < 1 or not 0 <= self.hide <= 1:
            raise ValueError(f"patches must be 1 or more and hide in 0..1, got {self.patches} and {self.hide}")

    def __call__(
        self,
        frames: Tensor,
        generator: torch.Generator,
        *,
        colour: Sequence[float],
        first: int = 0,
        total: int | None = None,
    ) -> Tensor:
        """Hide parts of uint8 frames ``[N, 3, H, W]``.

        Args:
            frames: the frames; not changed in place.
            generator: source of randomness, on the frames' device.
            colour: red, green and blue of hidden pixels, in 0..1.
            first: position of these frames in a batch of ``total``. Numbers are drawn for the whole batch, so that
                splitting it changes nothing.
            total: size of the batch; None if these frames are the batch.

        Returns:
            uint8 ``[N, 3, H, W]``.

        Raises:
            ValueError: another shape or dtype.
        """
        if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8:
            raise ValueError(f"frames must be uint8 [N, 3, H, W], got {frames.dtype} {list(frames.shape)}")
        count, _, height, width = frames.shape
        total, device = count if total is None else total, generator.device
        sides = torch.tensor((max(height, width), *self.patches), device=device)
        chosen = torch.randint(len(sides), (total,), generator=generator, device=device)[first : first + count]
        cells = -(-max(height, width) // min(self.patches))
        luck = torch.rand(total, cells, cells, generator=generator, device=device)[first : first + count]
        hidden = (luck < self.hide) & (chosen > 0)[:, None, None]
        side = sides[chosen][:, None]
        rows, columns = (torch.arange(length, device=device) // side for length in (height, width))
        one = torch.arange(count, device=device)[:, None, None]
        mask = hidden[one, rows[:, :, None], columns[:, None, :]]
        fill = (255 * torch.tensor(tuple(colour), device=device)).round().to(torch.uint8)
        return torch.where(mask[:, None], fill[:, None, None], frames)
