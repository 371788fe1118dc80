"""Choose the frames of a clip or a neighbourhood: index arithmetic, without any video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from tcam.types import Shot

NeighbourMode = Literal["before", "after", "before-after", "instant"]


def frame_window(num_frames: int, limit: float) -> range:
    """Return the middle part of a shot that training frames are drawn from (CoLo-CAM's ``sample_fr_limit``).

    Frames near a cut often do not show the object. For ``limit`` 0.6 a shot of 10 frames gives 2..8, one of 4 gives
    1..3, one of 3 gives 1; shots of one or two frames are used whole.

    Args:
        num_frames: frames of the shot, at least 1.
        limit: share of the shot, 0 < limit <= 1; 1 is the whole shot.

    Returns:
        Positions within the shot, never empty.

    Raises:
        ValueError: an argument outside its range.
    """
    if num_frames < 1 or not 0 < limit <= 1:
        raise ValueError(f"expected num_frames >= 1 and 0 < limit <= 1, got {num_frames} and {limit}")
    if limit == 1 or num_frames <= 2:
        return range(num_frames)
    if num_frames == 3:
        return range(1, 2)
    centre = num_frames // 2
    # The small addend keeps 0.29 * 100 = 28.999... from losing a frame.
    half = max(math.floor(limit * num_frames + 1e-9) // 2, 1)
    return range(max(centre - half, 0), min(centre + half, num_frames - 1) + 1)


def neighbours(frame: int, shot: Shot, *, count: int, mode: NeighbourMode) -> list[int]:
    """Return a frame and its ``count`` neighbours on the sides of ``mode``, as temporal max-pooling uses them (TCAM).

    Args:
        frame: an index inside the shot.
        shot: the frames that may be used; neighbours beyond its ends do not exist.
        count: neighbours per side; 0 returns only the frame itself.
        mode: ``before`` (frame - count .. frame), ``after``, ``before-after`` or ``instant`` (needs ``count`` 0).

    Returns:
        Ascending indices, ``frame`` among them.

    Raises:
        ValueError: the frame lies outside the shot, ``count`` is negative, or neighbours of an instant.
    """
    if not shot.start <= frame < shot.stop:
        raise ValueError(f"frame must lie in the shot [{shot.start}, {shot.stop}), got {frame}")
    if count < 0 or (mode == "instant" and count > 0):
        raise ValueError(f"count must be at least 0, and 0 for the mode instant, got {count} ({mode})")
    first = max(frame - count, shot.start) if mode in ("before", "before-after") else frame
    last = min(frame + count, shot.stop - 1) if mode in ("after", "before-after") else frame
    return list(range(first, last + 1))


def spread_frames(shot: Shot, most: int | None) -> Sequence[int]:
    """Return at most ``most`` frame indices of a shot, evenly spread: the middles of equal parts; None: all."""
    count = len(shot)
    if most is None or count <= most:
        return range(shot.start, shot.stop)
    return [shot.start + (2 * i + 1) * count // (2 * most) for i in range(most)]


class ClipSampler(Protocol):
    """Draws the frames of one training clip from a shot, such as ``FrameSampler``."""

    def __call__(self, shot: Shot, generator: torch.Generator) -> list[int]:
        """Return frame indices of the video, ascending."""

    def length(self, shot: Shot) -> int:
        """Return the number of frames of every clip of this shot."""


@dataclass(frozen=True, slots=True)
class FrameSampler:
    """Draws one frame of the middle of a shot, uniformly: the clips of the classifier and of TCAM.

    Attributes:
        limit: share of the shot, 0 < limit <= 1; see ``frame_window``.
        most: draw from this many frames of the shot, evenly spread (``spread_frames``); None: from all.
    """

    limit: float
    most: int | None = None

    def __call__(self, shot: Shot, generator: torch.Generator) -> list[int]:
        """Draw a frame index.

        Raises:
            ValueError: ``limit`` outside its range.
        """
        frames = spread_frames(shot, self.most)
        window = frame_window(len(frames), self.limit)
        return [frames[window[int(torch.randint(len(window), (), generator=generator))]]]

    def length(self, shot: Shot) -> int:  # noqa: ARG002 (every sampler has this method)
        """Return how many frames a clip of this shot has: 1."""
        return 1
