"""Refine maps after the network, so that they follow the edges of their frames: mean-field inference of a dense CRF."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tcam.errors import MissingPartError

_SURE: Final = 1e-4
"""Maps are clipped to this distance from 0 and 1, so that their logarithm is finite."""


@dataclass(frozen=True, slots=True)
class MeanField:
    """Mean-field inference of a fully connected CRF over two labels (Kraehenbuehl & Koltun, NIPS 2011).

    Approximately minimises ``sum_p -log P(l_p) + sum_{p<q} [l_p != l_q] k(p, q)``, where P is the map and

        k(p, q) = a exp(-|x_p - x_q|^2 / 2 s_a^2 - |I_p - I_q|^2 / 2 s_rgb^2) + b exp(-|x_p - x_q|^2 / 2 s_b^2)

    The kernels are normalised symmetrically, the default of pydensecrf. The odds of the map are divided by those of its
    threshold: otherwise objects of a map whose threshold is 0.9 would grow, and those of one with 0.2 would vanish.
    Weights and reaches are below the usual ones (10 and 3; 80 pixels, 13 levels), which make small objects disappear.

    Attributes:
        threshold: the map value that is equally likely foreground and background, 0..1; it becomes 0.5.
        iterations: iterations of the mean field, 1 or more.
        colour_weight: a.
        colour_xy: s_a in pixels of the map.
        colour_rgb: s_rgb in colour levels.
        smooth_weight: b.
        smooth_xy: s_b in pixels.

    Raises:
        MissingPartError: pydensecrf is not installed; raised here, not at the first frame.
        ValueError: an attribute outside its range.
    """

    threshold: float = 0.5
    iterations: int = 5
    colour_weight: float = 2.0
    colour_xy: float = 40.0
    colour_rgb: float = 10.0
    smooth_weight: float = 1.0
    smooth_xy: float = 3.0

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be 0 to 1, got {self.threshold}")
        if self.iterations < 1:
            raise ValueError(f"iterations must be 1 or more, got {self.iterations}")
        reaches = (self.colour_xy, self.colour_rgb, self.smooth_xy)
        if min(reaches) <= 0 or min(self.colour_weight, self.smooth_weight) < 0:
            found = f"{reaches}, {self.colour_weight} and {self.smooth_weight}"
            raise ValueError(f"reaches must be above 0 and weights 0 or more, got {found}")
        _densecrf()

    def __call__(self, maps: Tensor, frames: Tensor) -> Tensor:
        """Refine maps, frame by frame, on the CPU.

        Args:
            maps: ``[N, H, W]`` in 0..1, the probability of foreground.
            frames: uint8 ``[N, 3, H, W]``, RGB, the frames of the maps.

        Returns:
            float32 ``[N, H, W]`` in 0..1 on the device of ``maps``.

        Raises:
            ValueError: other shapes.
        """
        if maps.ndim != 3 or frames.dtype != torch.uint8 or frames.shape != (len(maps), 3, *maps.shape[1:]):
            found = f"{list(maps.shape)} and {frames.dtype} {list(frames.shape)}"
            raise ValueError(f"expected maps [N, H, W] and uint8 frames [N, 3, H, W], got {found}")
        shares = maps.detach().float().cpu().numpy().clip(_SURE, 1 - _SURE)
        level = min(max(self.threshold, _SURE), 1 - _SURE)
        shares = shares * (1 - level) / (shares * (1 - level) + (1 - shares) * level)  # odds by the threshold's odds
        shares = shares.clip(_SURE, 1 - _SURE)
        pictures = np.ascontiguousarray(frames.permute(0, 2, 3, 1).cpu().numpy())
        refined = [self._refine(share, picture) for share, picture in zip(shares, pictures, strict=True)]
        return torch.from_numpy(np.stack(refined)).to(maps.device) if refined else maps.float()

    def _refine(self, share: np.ndarray, picture: np.ndarray) -> np.ndarray:
        height, width = share.shape
        field = _densecrf().DenseCRF2D(width, height, 2)
        field.setUnaryEnergy(-np.log(np.stack([1 - share, share]).reshape(2, -1)))
        field.addPairwiseGaussian(sxy=self.smooth_xy, compat=self.smooth_weight)
        field.addPairwiseBilateral(sxy=self.colour_xy, srgb=self.colour_rgb, rgbim=picture, compat=self.colour_weight)
        posterior = np.array(field.inference(self.iterations), dtype=np.float32)
        # By the sum over labels: rounding leaves it a little off 1.
        both: np.ndarray = posterior[1] / np.maximum(posterior.sum(axis=0), _SURE)
        return both.reshape(height, width)


def _densecrf() -> ModuleType:
    """Import the optional package at its first use."""
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise MissingPartError(f"refining maps by a CRF needs pydensecrf ({error}): pip install 'tcam[crf]'") from None
    module: ModuleType = densecrf
    return module
