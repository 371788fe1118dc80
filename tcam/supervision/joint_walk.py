"""A walk over all pixels of some frames makes their maps agree: co-localization in feature space, without training.

Positions that look alike to a frozen backbone get alike values, in whichever frame they are. Colour, which CoLo-CAM's
joint term rests on, seldom tells object from background in real videos; features of a middle level do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tcam.types import Size

_EPSILON: Final = 1e-6


@dataclass(frozen=True, slots=True)
class JointWalk:
    """Random walk with restart over all positions of some frames of a shot; it makes their maps agree.

    With ``q0`` the maps, each stretched to 0..1 and laid out as one vector over all positions of a window, and ``P``
    the affinity of its positions with rows that sum to 1:

        q <- (1 - momentum) q0 + momentum P q,    steps times

    ``P_ij`` is proportional to ``exp(-|f_i - f_j|^2 / (2 sigma^2))``. ``f`` are features of unit length, reduced to
    their first principal components over the window, the largest of which has standard deviation 1.

    Attributes:
        sigma: reach of the affinity.
        momentum: in 0..1; 0 leaves the maps as they are.
        steps: of the walk.
        components: principal components kept.
        window: frames that walk together. Memory grows with the square of ``window`` times the positions of a frame,
            and not with the length of the shot.
        stride: step between the frames that walk together; consecutive frames are almost the same picture. A shot is
            cut into blocks of ``window * stride`` frames that overlap by half; the last one may be shorter. In a block,
            frames r, r + stride, r + 2 stride, ... walk together, for each r below ``stride``. Where blocks overlap,
            each counts more towards its middle. A shot shorter than a block has a smaller stride, see ``stride_of``.
    """

    sigma: float = 0.4
    momentum: float = 0.95
    steps: int = 30
    components: int = 8
    window: int = 8
    stride: int = 3

    def __post_init__(self) -> None:
        if not (self.sigma > 0 and 0 <= self.momentum <= 1 and self.steps >= 0):
            found = f"{self.sigma}, {self.momentum} and {self.steps}"
            raise ValueError(f"expected sigma above 0, momentum in 0..1 and steps of 0 or more, got {found}")
        if min(self.components, self.window, self.stride) < 1:
            found = f"{self.components}, {self.window} and {self.stride}"
            raise ValueError(f"components, window and stride must be 1 or more, got {found}")

    @torch.no_grad()
    def __call__(self, maps: Tensor, features: Tensor) -> Tensor:
        """Return the maps of a shot's T frames after the walk; ``context`` says which frames a part of a shot needs.

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
        start = start_maps(maps, (features.shape[2], features.shape[3]))
        walked = list(self.walk_in_order(zip(start, features, strict=True)))
        return torch.stack(walked) if walked else start

    def walk_in_order(self, frames: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
        """Yield the map of each frame of a shot after the walk, float32 ``[h, w]``; holds the frames of one block.

        Args:
            frames: the map ``[h, w]`` (see ``start_maps``) and the features ``[C, h, w]`` of each frame, in order.
        """
        source = iter(frames)
        first = list(itertools.islice(source, self.window * self.stride))
        source = itertools.chain(first, source)
        stride, (length, step) = self.stride_of(len(first)), self._block(len(first))
        held: list[tuple[Tensor, Tensor]] = []
        total, weights = torch.zeros(0), torch.zeros(0)
        while more := list(itertools.islice(source, length - len(held))):
            held += more
            weight = _towards_the_middle(len(held), held[0][0])
            walked = weight * self._walk_block(held, stride)
            if len(total):  # frames that earlier blocks hold too
                walked[: len(total)] += total
                weight[: len(total)] += weights
            yield from stretch(walked[:step] / weight[:step])
            held, total, weights = held[step:], walked[step:], weight[step:]
        if held:
            yield from stretch(total / weights)

    def stride_of(self, frames: int) -> int:
        """Return the stride in a shot of so many frames: ``stride``, or less where the shot is shorter than a block."""
        return max(1, min(self.stride, frames // self.window))

    def blocks(self, frames: int) -> list[tuple[int, int]]:
        """Return the blocks of a shot of so many frames, half-open; the last one may be shorter."""
        length, step = self._block(frames)
        return [(first, min(first + length, frames)) for first in range(0, max(frames - length + step, 1), step)]

    def context(self, frames: range, shot: range) -> range:
        """Return the frames of a shot that share a block with ``frames``, or a block more.

        Given these alone, ``frames`` walk as in the whole shot: blocks and stride are the same.
        """
        length, step = self._block(len(shot))
        first = max((frames.start - shot.start - length) // step + 1, 0)
        start = shot.start + first * step
        last = max(0, -((length - len(shot)) // step))  # block of the shot
        stop = min(shot.start + min((frames.stop - 1 - shot.start) // step, last) * step + length, shot.stop)
        if first and stop - start < length:  # by itself, the last block would have a smaller stride
            start -= step
        return range(start, stop)

    def context_start(self, frame: int) -> int:
        """Return the first frame of the context of a frame and all that follow, in a shot from 0 to an unknown end."""
        known = range(max(frame + 1, self.window * self.stride))
        return self.context(range(frame, frame + 1), known).start

    def _block(self, frames: int) -> tuple[int, int]:
        """Return the length of blocks, and the step from one to the next, in a shot of so many frames."""
        length = self.window * self.stride_of(frames)
        return length, max(length // 2, 1)

    def _walk_block(self, frames: Sequence[tuple[Tensor, Tensor]], stride: int) -> Tensor:
        """Return the maps of one block after the walk, ``[T, h, w]``."""
        start = torch.stack([one_map for one_map, _ in frames])
        walked = torch.empty_like(start)
        for first in range(min(stride, len(frames))):
            walked[first::stride] = self.together(
                start[first::stride], torch.stack([f for _, f in frames[first::stride]])
            )
        return walked

    @torch.no_grad()
    def together(self, start: Tensor, features: Tensor) -> Tensor:
        """Return the maps ``[T, h, w]`` of frames that all walk together, each stretched to 0..1.

        Args:
            start: ``[T, h, w]``, see ``start_maps``.
            features: ``[T, C, h, w]``.
        """
        reduced = principal_components(features, self.components) / self.sigma
        kernel = gaussian_affinity(reduced)
        share = self.momentum / kernel.sum(dim=1)  # so that rows sum to 1: on the result, not on the matrix
        origin = start.flatten()
        state = origin
        for _ in range(self.steps):
            state = torch.addcmul((1 - self.momentum) * origin, share, kernel.mv(state))
        return stretch(state.view(start.shape))


def start_maps(maps: Tensor, size: Size) -> Tensor:
    """Return maps ``[N, h0, w0]`` as float32 ``[N, h, w]``, each stretched to 0..1; finer maps are averaged down."""
    if maps.shape[1] > size[0] and maps.shape[2] > size[1]:
        return stretch(functional.interpolate(maps[:, None].float(), size, mode="area")[:, 0])
    return stretch(functional.interpolate(maps[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0])


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


def principal_components(features: Tensor, count: int) -> Tensor:
    """Reduce features ``[T, C, h, w]`` of some frames to ``[T h w, count]``.

    Features have unit length before, the largest component has standard deviation 1 after. Fewer channels than
    ``count`` give as many components; features that are all alike give zeros.
    """
    flat = functional.normalize(features.float(), dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    flat = flat.double()  # sums over all positions depend on the number of threads: here beyond what is kept of them
    flat = flat - flat.mean(dim=0)
    axes = torch.linalg.eigh(flat.T @ flat)[1][:, -count:]
    reduced = flat @ axes
    scaled: Tensor = (reduced / reduced.std(dim=0, unbiased=False).max().clamp_min(_EPSILON)).float()
    return scaled


def gaussian_affinity(points: Tensor) -> Tensor:
    """Return ``exp(-|a - b|^2 / 2)`` for every pair of the points ``[N, D]``, ``[N, N]``."""
    half = points.square().sum(dim=1, keepdim=True).mul_(-0.5)
    ones = torch.ones_like(half)  # one product gives -|a|^2/2 - |b|^2/2 + ab for every pair
    return (torch.cat([points, half, ones], dim=1) @ torch.cat([points, ones, half], dim=1).T).exp_()


def stretch(maps: Tensor) -> Tensor:
    """Stretch each of the maps ``[N, h, w]`` to 0..1; a constant map becomes 0."""
    shifted = maps - maps.amin(dim=(1, 2), keepdim=True)
    return shifted / shifted.amax(dim=(1, 2), keepdim=True).clamp_min(_EPSILON)


def _towards_the_middle(frames: int, like: Tensor) -> Tensor:
    """Return weights ``[frames, 1, 1]``, largest in the middle: 1, 2, ..., 2, 1."""
    place = torch.arange(frames, dtype=like.dtype, device=like.device)
    return (torch.minimum(place, frames - 1 - place) + 1).view(-1, 1, 1)
