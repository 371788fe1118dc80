"""Check the boxes of a run without a true box: a few frames of each video, looked at once.

For each video: how sure the classifier is of the tag, how much the box moves from one frame to the next, and how much
it changes with the map threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pipelines.evaluation.sampling import spread_out
from pipelines.inference.overlay import draw_overlay
from pipelines.models.engine import FrameMaps
from pipelines.models.localizer import NetworkLocalizer
from pipelines.run.console import progress_bar
from tcam.boxes.boxes import iou
from tcam.boxes.extract import boxes_at_thresholds
from tcam.errors import VideoError
from tcam.types import NO_CLASS, SPLITS, Box, Size, VideoIndex, VideoRecord
from tcam.video.dataset import OpenReaders
from tcam.video.pixels import Pixels

MOST_VIDEOS: Final = 60
STEPS_PER_VIDEO: Final = 2
"""Pairs of consecutive frames looked at: four frames of a video at most."""
THRESHOLD_STEP: Final = 0.1
_LONG_SIDE: Final = 240
"""Pixels of the frames drawn for the page."""


@dataclass(frozen=True, slots=True)
class VideoCheck:
    """What was found in a few frames of one video; numbers are means over these frames, in 0..1.

    Attributes:
        video: its name.
        split: ``train``, ``val`` or ``test``.
        tag: its tag.
        frame: the frame drawn.
        picture: that frame with its box.
        found: whether there is a box in it.
        tag_probability: of the tag.
        best: the class with the highest probability.
        best_probability: of that class.
        others: its other tags.
        over_time: IoU of the boxes of consecutive frames; NaN where a video has none.
        over_thresholds: IoU of the boxes at a lower and at a higher threshold.
    """

    video: str
    split: str
    tag: str
    frame: int
    picture: Pixels
    found: bool
    tag_probability: float
    best: str
    best_probability: float
    over_time: float
    over_thresholds: float
    others: tuple[str, ...] = ()

    @property
    def certainty(self) -> float:
        """Probability of the tag times the IoU of the boxes at two thresholds."""
        return self.tag_probability * self.over_thresholds

    @property
    def agrees(self) -> bool:
        """Whether the classifier finds a tag of the video the most probable class."""
        return self.best in (self.tag, *self.others)


@dataclass(frozen=True, slots=True)
class Checks:
    """The checks of a run's videos, least certain first.

    Attributes:
        method: the localizer looked at.
        threshold: its map threshold.
        videos: one check per video.
        left_out: names of videos that could not be read.
        total: number of tagged videos, looked at or not.
        classes: number of classes.
    """

    method: str
    threshold: float
    videos: Sequence[VideoCheck]
    left_out: Sequence[str] = field(default=())
    total: int = 0
    classes: int = 0


def check_videos(
    method: str, localizer: NetworkLocalizer, index: VideoIndex, *, threshold: float, size: Size
) -> Checks:
    """Look at a few frames of at most 60 videos: those to test first, then validation and training, in turn of tags.

    Args:
        method: name of the localizer.
        localizer: makes maps and class probabilities.
        index: the videos and their tags.
        threshold: map threshold of the localizer.
        size: (height, width) of the network's input.
    """
    ordered = videos_in_turn(index)
    videos, readers = ordered[:MOST_VIDEOS], OpenReaders(size)
    checks, left_out = [], []
    with progress_bar() as bar:
        task = bar.add_task("report", total=len(videos))
        for record in videos:
            try:
                checks.append(_check(localizer, record, readers, index.class_names, threshold))
            except VideoError:
                left_out.append(record.video_id)
            bar.advance(task)
    checks.sort(key=lambda check: (check.certainty, check.video))
    return Checks(method, threshold, checks, left_out, len(ordered), len(index.class_names))


def videos_in_turn(index: VideoIndex) -> list[VideoRecord]:
    """Return the tagged videos: test, validation, training; within a split the first of each tag, then the second."""
    ranked = []
    for split in reversed(SPLITS):
        count: dict[int, int] = {}
        for record in index.of_split(split):
            if record.label != NO_CLASS:
                count[record.label] = count.get(record.label, 0) + 1
                ranked.append((SPLITS.index(split), count[record.label], record.label, record))
    return [record for *_, record in sorted(ranked, key=lambda item: (-item[0], *item[1:3]))]


def first_of_pairs(record: VideoRecord, wanted: int) -> list[int]:
    """Return the first frames of pairs of consecutive frames of a shot, spread over a video."""
    steps = [len(shot) - 1 for shot in record.shots]
    ends = np.cumsum(steps)
    found = []
    for place in spread_out(int(ends[-1]), wanted):
        shot = int(np.searchsorted(ends, place, side="right"))
        found.append(record.shots[shot].stop - 1 - int(ends[shot]) + place)
    return found


@torch.inference_mode()
def _check(
    localizer: NetworkLocalizer, record: VideoRecord, readers: OpenReaders, names: Sequence[str], threshold: float
) -> VideoCheck:
    firsts = first_of_pairs(record, STEPS_PER_VIDEO)
    frames = sorted({*firsts, *(i + 1 for i in firsts)}) or [record.shots[0].start]
    pixels = readers.read(record, frames)
    found = _maps(localizer, pixels, torch.full((len(frames),), record.label))
    low, high = neighbours(threshold)
    boxes = boxes_at_thresholds(found.maps, [low, threshold, high])
    places = [frames.index(i) for i in firsts]
    steps = _overlap(boxes[places, 1], boxes[[i + 1 for i in places], 1])
    probabilities = found.probabilities.float().mean(dim=0).cpu()
    best, shown = int(probabilities.argmax()), len(frames) // 2
    box = boxes[shown, 1]
    return VideoCheck(
        record.video_id,
        record.split,
        names[record.label],
        frames[shown],
        _draw(pixels[shown], box, record.size),
        not bool(box.isnan().any()),
        float(probabilities[record.label]),
        names[best],
        float(probabilities[best]),
        steps if places else math.nan,
        _overlap(boxes[:, 0], boxes[:, 2]),
        tuple(names[label] for label in record.also),
    )


def _maps(localizer: NetworkLocalizer, frames: Tensor, labels: Tensor) -> FrameMaps[Tensor]:
    """Return the maps of some frames of a video; where the localizer has a walk, these frames walk together."""
    found = localizer(frames, labels)
    maps = found.maps.float()
    if localizer.walk is not None and found.features is not None:
        walked, size = localizer.walk(maps, found.features), (frames.shape[2], frames.shape[3])
        maps = functional.interpolate(walked[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    return replace(found, maps=maps)


def neighbours(threshold: float) -> tuple[float, float]:
    """Return a lower and a higher threshold: 0.1 away, but at most half of the way to 0 and 1."""
    return max(threshold - THRESHOLD_STEP, threshold / 2), min(threshold + THRESHOLD_STEP, (1 + threshold) / 2)


def _overlap(first: Tensor, second: Tensor) -> float:
    """Return the mean IoU of boxes ``[N, 4]``; a missing box overlaps nothing."""
    return float(iou(first, second).nan_to_num(0.0).mean())


def _draw(pixels: Tensor, box: Tensor, size: Size) -> Pixels:
    """Draw a box ``[4]``, in pixels of the network's input ``[3, H, W]``, over the frame in its own proportions."""
    scale = _LONG_SIDE / max(size)
    height, width = (max(1, round(side * scale)) for side in size)
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.LANCZOS)
    factors = (width / pixels.shape[2], height / pixels.shape[1]) * 2
    scaled = [value * factor for value, factor in zip(box.tolist(), factors, strict=True)]
    found = None if bool(box.isnan().any()) else Box(*scaled)
    return draw_overlay(np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1)), found)
