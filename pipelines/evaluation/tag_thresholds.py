"""Choose map thresholds from tags and pixels alone: no box is read.

First the level of the walked CAM: the box at a threshold should hold what makes the classifier see the tag, and leave
little of it outside. With p(tag) of the mean feature inside the box, outside it and of the whole frame, each a mean
over tags, that is the threshold with the highest ``inside * (1 - outside / whole)``. It is one threshold for many
frames: chosen frame by frame, the same score is far worse.

Then every map of the run gets the threshold at which its boxes cover, on average, the same share of the frame. Decoders
trained from walked CAMs saturate more with every round, so that a fixed threshold would give ever larger boxes; the
size of the objects stays what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipelines.evaluation.sampling import spread_out
from pipelines.models.localizer import NetworkLocalizer, class_activation
from pipelines.run.console import progress_bar
from tcam.boxes.extract import boxes_at_thresholds
from tcam.model.level_head import sixteenth
from tcam.model.network import FrameCamNet
from tcam.supervision.joint_walk import JointWalk
from tcam.types import NO_CLASS, FrameOutput, Size, VideoIndex, VideoRecord
from tcam.video.clips import spread_frames
from tcam.video.dataset import OpenReaders

MOST_VIDEOS: Final = 64
FRAMES_PER_VIDEO: Final = 8
_GRID: Final = tuple(round(0.02 * i, 2) for i in range(1, 49))
_SIDE: Final = 20
"""Positions per side that features are enlarged to, so that boxes cut them more finely."""


@dataclass(frozen=True, slots=True)
class TagThresholds:
    """What was chosen, and why.

    Attributes:
        thresholds: the map threshold of each localizer.
        share: mean share of the frame that boxes cover at all of them.
        curve: score of the walked CAM at each threshold of ``levels``.
        levels: the thresholds tried.
        shares: mean share of the frame that the walked CAM's boxes cover at each of ``levels``.
        videos: number of videos looked at.
    """

    thresholds: Mapping[str, float]
    share: float
    curve: tuple[float, ...]
    levels: tuple[float, ...]
    shares: tuple[float, ...]
    videos: int


def choose_by_tags(
    localizers: Mapping[str, NetworkLocalizer],
    cam: NetworkLocalizer,
    index: VideoIndex,
    *,
    walk: JointWalk,
    size: Size,
    grid: Sequence[float],
) -> TagThresholds:
    """Choose the map threshold of each localizer from at most 64 training and validation videos.

    Args:
        localizers: by name.
        cam: makes the classifier's CAMs.
        index: the videos and their tags.
        walk: makes the CAMs of a video agree.
        size: (height, width) of the network's input.
        grid: the thresholds to choose from.

    Raises:
        VideoError: a video cannot be read.
    """
    videos, readers = _videos(index), OpenReaders(size)
    scores, shares = _Means(), {name: _Means() for name in localizers}
    with progress_bar() as bar:
        task = bar.add_task("thresholds", total=len(videos))
        for record in videos:
            frames = readers.read(record, _frames(record))
            tag, labels = record.label, torch.full((len(frames),), record.label)
            scores.add(tag, score_boxes(cam, frames, labels, walk))
            for name, localizer in localizers.items():
                maps = _maps(localizer, frames, labels)
                shares[name].add(tag, box_shares(boxes_at_thresholds(maps, _GRID), size)[None])
            bar.advance(task)
    inside, outside, whole, covered = scores.mean()
    curve = inside * (1 - outside / np.maximum(whole, 1e-6))
    best = int(np.argmax(curve))
    levels = {name: _level_of(means.mean()[0], covered[best]) for name, means in shares.items()}
    chosen = {name: min(grid, key=lambda value: abs(value - level)) for name, level in levels.items()}
    return TagThresholds(chosen, float(covered[best]), _floats(curve), _GRID, _floats(covered), len(videos))


@torch.inference_mode()
def _maps(localizer: NetworkLocalizer, frames: Tensor, labels: Tensor) -> Tensor:
    """Return the maps of a video's frames on the CPU; where the localizer has a walk, these frames walk together."""
    found = localizer(frames, labels)
    maps = found.maps.float()
    if localizer.walk is not None and found.features is not None:
        walked, size = localizer.walk(maps, found.features), (frames.shape[2], frames.shape[3])
        maps = functional.interpolate(walked[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    return maps.cpu()


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(values.tolist())


class _Means:
    """Mean over tags of the mean over videos of some rows of numbers."""

    def __init__(self) -> None:
        self._of_tag: dict[int, list[np.ndarray]] = {}

    def add(self, label: int, rows: np.ndarray) -> None:
        """Add rows ``[R, L]``, each a mean over the frames of one video."""
        self._of_tag.setdefault(label, []).append(rows)

    def mean(self) -> np.ndarray:
        """Return the mean ``[R, L]``."""
        means: np.ndarray = np.mean([np.mean(rows, axis=0) for rows in self._of_tag.values()], axis=0)
        return means


def _videos(index: VideoIndex) -> list[VideoRecord]:
    """Return training and validation videos in turn of their tags, at most ``MOST_VIDEOS``."""
    tagged = [r for split in ("val", "train") for r in index.of_split(split) if r.label != NO_CLASS]
    by_tag: dict[int, list[VideoRecord]] = {}
    for record in tagged:
        by_tag.setdefault(record.label, []).append(record)
    ranked = [(place, label, record) for label, own in by_tag.items() for place, record in enumerate(own)]
    return [record for _, _, record in sorted(ranked, key=lambda item: item[:2])[:MOST_VIDEOS]]


def _frames(record: VideoRecord) -> list[int]:
    frames = [i for shot in record.shots for i in spread_frames(shot, FRAMES_PER_VIDEO)]
    return [frames[i] for i in spread_out(len(frames), FRAMES_PER_VIDEO)]


@torch.inference_mode()
def score_boxes(localizer: NetworkLocalizer, frames: Tensor, labels: Tensor, walk: JointWalk) -> np.ndarray:
    """Return what the boxes of a video's walked CAMs hold at each threshold of the grid, mean over its frames.

    Args:
        localizer: the classifier and its CAM method.
        frames: uint8 ``[N, 3, H, W]``, of one video.
        labels: ``[N]``, its tag.
        walk: makes their CAMs agree.

    Returns:
        ``[4, L]``: p(tag) inside the boxes, outside, of the whole frames, and the boxes' share of the frame.
    """
    size, network = (frames.shape[2], frames.shape[3]), localizer.network
    frames, labels = frames.to(localizer.compute.device), labels.to(localizer.compute.device)
    with localizer.compute.autocast():
        pyramid = network.pyramid(frames)
        output = FrameOutput(network.head(pyramid.last), pyramid.last, None, pyramid.attention)
    cams = class_activation(localizer, frames, output=output, labels=labels)
    walked = walk(cams, sixteenth(pyramid.levels, size)[1])
    maps = functional.interpolate(walked[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    boxes = boxes_at_thresholds(maps.cpu(), _GRID)
    relative = boxes / torch.tensor([size[1], size[0], size[1], size[0]], dtype=boxes.dtype)
    inside, outside, whole = region_probabilities(network, pyramid.last.float(), relative, labels)
    wholes = whole.mean().expand(len(_GRID))
    return np.stack([inside.mean(0).numpy(), outside.mean(0).numpy(), wholes.numpy(), box_shares(boxes, size)])


def region_probabilities(
    network: FrameCamNet, features: Tensor, boxes: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return p(tag) of the mean feature inside boxes, outside them, and of the whole frames.

    Args:
        network: its class head is asked.
        features: ``[N, D, h, w]``, the input of the class head.
        boxes: ``[N, L, 4]`` in 0..1 of the frame; NaN where there is none, which holds nothing.
        labels: ``[N]``.

    Returns:
        ``[N, L]``, ``[N, L]`` and ``[N]``, on the CPU.
    """
    size = (max(features.shape[2], _SIDE), max(features.shape[3], _SIDE))
    fine = functional.interpolate(features, size=size, mode="bilinear", align_corners=False)
    sums = functional.pad(fine.cumsum(2).cumsum(3), (1, 0, 1, 0))
    there = ~boxes[..., 0].isnan()
    scaled = boxes.nan_to_num(0.0).to(features.device) * torch.tensor([size[1], size[0]] * 2, device=features.device)
    x0, y0 = scaled[..., 0].floor().long(), scaled[..., 1].floor().long()
    x1, y1 = torch.maximum(scaled[..., 2].ceil().long(), x0 + 1), torch.maximum(scaled[..., 3].ceil().long(), y0 + 1)
    frame = torch.arange(len(features), device=features.device)[:, None].expand_as(x0)

    def corner(y: Tensor, x: Tensor) -> Tensor:
        found: Tensor = sums[frame, :, y.clamp(max=size[0]), x.clamp(max=size[1])]  # [N, L, D]
        return found

    inside = corner(y1, x1) - corner(y0, x1) - corner(y1, x0) + corner(y0, x0)
    area = ((y1.clamp(max=size[0]) - y0) * (x1.clamp(max=size[1]) - x0))[..., None]
    total = sums[:, :, -1, -1]
    rest = (size[0] * size[1] - area).clamp(min=1)
    probabilities = [
        _tag_probability(network, part, labels)
        for part in (inside / area, (total[:, None] - inside) / rest, total[:, None] / (size[0] * size[1]))
    ]
    return probabilities[0] * there.cpu(), probabilities[1], probabilities[2][:, 0]


def _tag_probability(network: FrameCamNet, means: Tensor, labels: Tensor) -> Tensor:
    """Return p(tag) ``[N, L]`` of mean features ``[N, L, D]``, by the ImageNet classifier where there is one."""
    flat, tags = means.flatten(0, 1)[:, :, None, None], labels.repeat_interleave(means.shape[1])
    chosen: Tensor
    if network.prior is None:
        chosen = network.head(flat).float().softmax(dim=1).gather(1, tags[:, None])
    else:
        chosen = network.prior.tag_probabilities(flat, tags)
    return chosen.view(means.shape[:2]).cpu()


def box_shares(boxes: Tensor, size: Size) -> np.ndarray:
    """Return the mean share of frames of this (height, width) that boxes ``[N, L, 4]`` cover, ``[L]``; NaN covers 0."""
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]) / (size[0] * size[1])
    return area.nan_to_num(0.0).mean(dim=0).numpy()


def _level_of(shares: Sequence[float] | np.ndarray, wanted: float) -> float:
    """Return the threshold at which boxes cover the wanted share, linear between those of the grid."""
    falling = np.minimum.accumulate(np.asarray(shares))  # more threshold, less box, but for noise
    return float(np.interp(-wanted, -falling, _GRID))
