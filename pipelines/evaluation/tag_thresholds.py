"""Choose map thresholds without a box: where two maps of the same frames agree most, beyond chance.

The boxes of a map and of its walked map (``tcam.supervision.joint_walk``) in the same frame agree where they show the
object, and disagree where they show noise or the shape of the background. Boxes that cover the whole frame agree as
well, but so do those of different videos. So for each share of the frame that boxes cover on average, both maps get the
threshold of this share, and

    excess = mean IoU of their boxes in the same frame - mean IoU of their boxes in frames of different videos

is computed. It is largest where boxes are about as large as the objects. The threshold is one for all frames: chosen
frame by frame, such scores are far worse. Decoders trained from walked CAMs saturate more with every round; a threshold
by share follows them, a fixed one does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipelines.evaluation.sampling import spread_out
from pipelines.models.engine import FrameMaps
from pipelines.models.localizer import NetworkLocalizer
from pipelines.run.console import progress_bar
from tcam.boxes.extract import boxes_at_thresholds
from tcam.model.backbone import Pyramid
from tcam.model.network import FrameCamNet
from tcam.supervision.joint_walk import JointWalk
from tcam.types import NO_CLASS, Size, VideoIndex, VideoRecord
from tcam.video.clips import spread_frames
from tcam.video.dataset import OpenReaders

MOST_VIDEOS: Final = 64
FRAMES_PER_VIDEO: Final = 8
_LEVELS: Final = tuple(round(0.02 * i, 2) for i in range(1, 49))
_SHARES: Final = tuple(round(0.025 * i, 3) for i in range(2, 29))
"""Shares of the frame that are tried: 5 to 70 %."""
_SHIFTS: Final = 20
"""Other videos that the frames of a video are compared with."""

Boxes = NDArray[np.float64]

Look = Callable[[FrameCamNet, Sequence[tuple[str, int]]], Pyramid]
"""Returns the features of frames, named by video and index."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well the boxes of a map and of its walked map agree, at each of ``shares`` of the frame.

    Attributes:
        threshold: the chosen map threshold.
        share: the share of the frame that boxes cover at it, on average.
        shares: those tried.
        same: mean IoU of the two boxes of a frame.
        chance: mean IoU of boxes in frames of different videos.
    """

    threshold: float
    share: float
    shares: tuple[float, ...]
    same: tuple[float, ...]
    chance: tuple[float, ...]

    @property
    def is_guess(self) -> bool:
        """Whether boxes agree no more than by chance, whatever share they cover: the maps hardly tell the object."""
        return all(same <= chance for same, chance in zip(self.same, self.chance, strict=True))


@dataclass(frozen=True, slots=True)
class TagThresholds:
    """The choice for every localizer, by name, that for its walked maps, and the number of videos looked at."""

    by_localizer: Mapping[str, Agreement]
    walked: Mapping[str, Agreement]
    videos: int

    @property
    def thresholds(self) -> dict[str, float]:
        """The map threshold of each localizer."""
        return {name: found.threshold for name, found in self.by_localizer.items()}

    @property
    def guesses(self) -> list[str]:
        """The localizers whose map threshold is a guess."""
        return [name for name, found in self.by_localizer.items() if found.is_guess]


def choose_by_tags(
    localizers: Mapping[str, NetworkLocalizer],
    index: VideoIndex,
    *,
    walk: JointWalk,
    size: Size,
    grid: Sequence[float],
    look: Look | None = None,
) -> TagThresholds:
    """Choose the map threshold of each localizer from at most 64 training and validation videos.

    Args:
        localizers: by name.
        index: the videos and their tags, which say the class to map.
        walk: makes the maps of a video agree.
        size: (height, width) of the network's input.
        grid: the thresholds to choose from.
        look: returns kept features, if all localizers have the same frozen backbone.

    Raises:
        VideoError: a video cannot be read.
    """
    videos, readers = _videos(index), OpenReaders(size)
    found: dict[str, list[tuple[Boxes, Boxes]]] = {name: [] for name in localizers}
    with progress_bar() as bar:
        task = bar.add_task("thresholds", total=len(videos))
        for record in videos:
            places = _frames(record)
            frames = readers.read(record, places) if look is None else _unread(len(places), size)
            for name, localizer in localizers.items():
                walking, labels = replace(localizer, walk=walk), torch.full((len(frames),), record.label)
                if look is None:
                    maps = walking(frames, labels)
                else:
                    keys = [(record.video_id, place) for place in places]
                    maps = walking.map_features(look(localizer.network, keys), frames, labels)
                found[name].append(_boxes(maps, walk, size, swapped=localizer.walk is not None))
            bar.advance(task)
    return _choose(found, size, grid)


def _unread(frames: int, size: Size) -> Tensor:
    """Return the shape of frames whose features are kept: their pixels are not needed."""
    return torch.empty(frames, 3, *size, dtype=torch.uint8, device="meta")


def _choose(found: Mapping[str, list[tuple[Boxes, Boxes]]], size: Size, grid: Sequence[float]) -> TagThresholds:
    chosen = {name: measure_agreement(boxes, size, grid) for name, boxes in found.items()}
    swapped = {name: [(other, own) for own, other in boxes] for name, boxes in found.items()}
    walked = {name: measure_agreement(boxes, size, grid) for name, boxes in swapped.items()}
    return TagThresholds(chosen, walked, max(map(len, found.values()), default=0))


def _videos(index: VideoIndex) -> list[VideoRecord]:
    """Return training and validation videos in turn of their tags, at most ``MOST_VIDEOS``."""
    by_tag: dict[int, list[VideoRecord]] = {}
    for record in (*index.of_split("val"), *index.of_split("train")):
        if record.label != NO_CLASS:
            by_tag.setdefault(record.label, []).append(record)
    ranked = [(place, label, record) for label, own in by_tag.items() for place, record in enumerate(own)]
    return [record for _, _, record in sorted(ranked, key=lambda item: item[:2])[:MOST_VIDEOS]]


def _frames(record: VideoRecord) -> list[int]:
    frames = [i for shot in record.shots for i in spread_frames(shot, FRAMES_PER_VIDEO)]
    return [frames[i] for i in spread_out(len(frames), FRAMES_PER_VIDEO)]


@torch.inference_mode()
def _boxes(found: FrameMaps[Tensor], walk: JointWalk, size: Size, *, swapped: bool) -> tuple[Boxes, Boxes]:
    """Return the boxes of a video's maps and of its walked maps, ``[N, L, 4]`` each, or swapped; NaN for no box."""
    assert found.features is not None, "a localizer with a walk hands them out"
    walked = walk(found.maps, found.features)[:, None]
    enlarged = functional.interpolate(walked, size=size, mode="bilinear", align_corners=False)[:, 0]
    plain, other = (boxes_at_thresholds(maps.float().cpu(), _LEVELS).numpy() for maps in (found.maps, enlarged))
    return (other, plain) if swapped else (plain, other)


def measure_agreement(videos: Sequence[tuple[Boxes, Boxes]], size: Size, grid: Sequence[float]) -> Agreement:
    """Choose the threshold of the first of two maps by the agreement of their boxes.

    Args:
        videos: for each video the boxes of both maps at the thresholds 0.02, 0.04, ... 0.96: ``[N, 48, 4]`` in pixels,
            NaN for no box.
        size: (height, width) of the frames.
        grid: the thresholds to choose from.
    """
    area = size[0] * size[1]
    levels = [_levels_of([pair[i] for pair in videos], area) for i in (0, 1)]
    at = [[pair[i][:, np.round(levels[i]).astype(int)] for pair in videos] for i in (0, 1)]
    same = np.mean([_iou(own, other).mean(axis=0) for own, other in zip(*at, strict=True)], axis=0)
    shifts = range(1, min(_SHIFTS, len(videos) - 1) + 1)
    pairs = [(at[0][i], at[1][(i + shift) % len(videos)]) for shift in shifts for i in range(len(videos))]
    chance = np.zeros(len(_SHARES))
    if pairs:
        chance = np.mean([_iou(own[: len(other)], other[: len(own)]).mean(axis=0) for own, other in pairs], axis=0)
    best = int(np.argmax(same - chance))
    wanted = float(np.interp(levels[0][best], np.arange(len(_LEVELS)), _LEVELS))
    threshold = min(grid, key=lambda value: abs(value - wanted))
    return Agreement(threshold, _SHARES[best], _SHARES, tuple(same.tolist()), tuple(chance.tolist()))


def _levels_of(boxes: Sequence[Boxes], area: int) -> NDArray[np.float64]:
    """Return the place among ``_LEVELS``, between two of them, at which boxes cover each of ``_SHARES``."""
    shares = np.mean([np.nan_to_num(_area(part) / area).mean(axis=0) for part in boxes], axis=0)
    falling = np.minimum.accumulate(shares)  # a higher threshold, a smaller box, but for noise
    places: NDArray[np.float64] = np.interp(-np.asarray(_SHARES), -falling, np.arange(len(_LEVELS)))
    return places


def _area(boxes: Boxes) -> Boxes:
    area: Boxes = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return area


def _iou(first: Boxes, second: Boxes) -> Boxes:
    """Return the IoU of boxes ``[..., 4]``; 0 where one is missing."""
    width = np.minimum(first[..., 2], second[..., 2]) - np.maximum(first[..., 0], second[..., 0])
    height = np.minimum(first[..., 3], second[..., 3]) - np.maximum(first[..., 1], second[..., 1])
    both = width.clip(min=0) * height.clip(min=0)
    overlap: Boxes = np.nan_to_num(both / (_area(first) + _area(second) - both))
    return overlap
