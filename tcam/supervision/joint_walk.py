"""A walk over all pixels of some frames makes their maps agree: co-localization in feature space, without training.

Positions that look alike to a frozen backbone get alike values, in whichever frame they are. Colour, which CoLo-CAM's
joint term rests on, seldom tells object from background in real videos; features of a middle level do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tcam.types import Size

_EPSILON: Final = 1e-6


@dataclass(frozen=True, slots=True)
class JointWalk:
    """Random walk with restart over all positions of consecutive frames; it makes their maps agree.

    With ``q0`` the maps, laid out as one vector over all positions of a window, and ``P`` the affinity of its
    positions with rows that sum to 1:

        q <- (1 - momentum) q0 + momentum P q,    steps times

    ``P_ij`` is proportional to ``exp(-|f_i - f_j|^2 / (2 sigma^2))``. ``f`` are features of unit length, reduced to
    their first principal components over the window, the largest of which has standard deviation 1.

    Attributes:
        sigma: reach of the affinity.
        momentum: in 0..1; 0 leaves the maps as they are.
        steps: of the walk.
        components: principal components kept.
        window: frames that walk together. Longer videos are cut into windows that overlap by half; where two overlap,
            each counts more towards its middle. Memory grows with the square of ``window`` times the positions of a
            frame, and not with the length of the video.
    """

    sigma: float = 0.4
    momentum: float = 0.95
    steps: int = 30
    components: int = 8
    window: int = 8

    def __post_init__(self) -> None:
        if not (self.sigma > 0 and 0 <= self.momentum <= 1 and self.steps >= 0):
            found = f"{self.sigma}, {self.momentum} and {self.steps}"
            raise ValueError(f"expected sigma above 0, momentum in 0..1 and steps of 0 or more, got {found}")
        if self.components < 1 or self.window < 1:
            raise ValueError(f"components and window must be 1 or more, got {self.components} and {self.window}")

    @torch.no_grad()
    def __call__(self, maps: Tensor, features: Tensor) -> Tensor:
        """Return the maps of T consecutive frames after the walk.

        Args:
            maps: ``[T, h0, w0]`` in 0..1, of any resolution.
            features: ``[T, C, h, w]`` of the same frames.

        Returns:
            float32 ``[T, h, w]``, each map stretched to 0..1; a constant map becomes 0.

        Raises:
            ValueError: other shapes.
        """
        if maps.ndim != 3 or features.ndim != 4 or len(maps) != len(features):
            shapes = f"{list(maps.shape)} and {list(features.shape)}"
            raise ValueError(f"maps must be [T, h0, w0] and features [T, C, h, w] of the same frames, got {shapes}")
        size = (features.shape[2], features.shape[3])
        start = functional.interpolate(maps[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0]
        total, weights = torch.zeros_like(start), start.new_zeros(len(start), 1, 1)
        for first, stop in windows(len(maps), self.window):
            weight = _towards_the_middle(stop - first, start)
            total[first:stop] += weight * self._walk(start[first:stop], features[first:stop])
            weights[first:stop] += weight
        return stretch(total / weights.clamp_min(_EPSILON))

    def _walk(self, start: Tensor, features: Tensor) -> Tensor:
        reduced = principal_components(features, self.components) / self.sigma
        kernel = torch.cdist(reduced, reduced).square_().mul_(-0.5).exp_()
        kernel /= kernel.sum(dim=1, keepdim=True)
        origin = start.flatten()
        state = origin
        for _ in range(self.steps):
            state = torch.addmv(origin, kernel, state, beta=1 - self.momentum, alpha=self.momentum)
        return stretch(state.view(start.shape))


def walk_context(frames: range, shot: range, length: int) -> range:
    """Return the frames of a shot that share a window with ``frames``: with these, they walk as in the whole shot."""
    cut = [(shot.start + first, shot.start + stop) for first, stop in windows(len(shot), length)]
    near = [(first, stop) for first, stop in cut if first < frames.stop and stop > frames.start]
    return range(near[0][0], near[-1][1])


def affinity_features(levels: Sequence[Tensor], frame_size: Size) -> Tensor:
    """Return features ``[N, C, h, w]`` for the affinity of positions: at 1/16 of the frame's sides, or nearly so.

    The level next to that size is taken, the coarser of two, and averaged down where it is finer.
    """
    wanted = (math.ceil(frame_size[0] / 16), math.ceil(frame_size[1] / 16))
    level = min(reversed(levels), key=lambda level: abs(math.log(level.shape[2] / wanted[0])))
    if level.shape[2] <= wanted[0]:
        return level
    averaged: Tensor = functional.interpolate(level.float(), wanted, mode="area")
    return averaged


def windows(frames: int, length: int) -> list[tuple[int, int]]:
    """Return half-open windows of ``length`` over ``frames`` frames; they overlap by half, the last ends at the end.

    Every frame lies in a window; fewer frames than ``length`` make one window.
    """
    step = max(length // 2, 1)
    starts = range(0, max(frames - length, 0) + 1, step)
    firsts = sorted({*starts, max(frames - length, 0)}) if frames else []
    return [(first, min(first + length, frames)) for first in firsts]


def principal_components(features: Tensor, count: int) -> Tensor:
    """Reduce features ``[T, C, h, w]`` of some frames to ``[T h w, count]``.

    Features have unit length before, the largest component has standard deviation 1 after. Fewer channels than
    ``count`` give as many components; features that are all alike give zeros.
    """
    flat = functional.normalize(features.float(), dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    flat = flat - flat.mean(dim=0)
    axes = torch.linalg.eigh(flat.T @ flat)[1][:, -count:]
    reduced: Tensor = flat @ axes
    return reduced / reduced.std(dim=0, unbiased=False).max().clamp_min(_EPSILON)


def stretch(maps: Tensor) -> Tensor:
    """Stretch each of the maps ``[N, h, w]`` to 0..1; a constant map becomes 0."""
    shifted = maps - maps.amin(dim=(1, 2), keepdim=True)
    return shifted / shifted.amax(dim=(1, 2), keepdim=True).clamp_min(_EPSILON)


def _towards_the_middle(frames: int, like: Tensor) -> Tensor:
    """Return weights ``[frames, 1, 1]``, largest in the middle: 1, 2, ..., 2, 1."""
    place = torch.arange(frames, dtype=like.dtype, device=like.device)
    return (torch.minimum(place, frames - 1 - place) + 1).view(-1, 1, 1)
