"""Features of a frozen backbone, computed once per frame and kept in memory for all epochs and stages of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

import torch
from torch import Tensor

from pipelines.evaluation.sampling import spread_out
from pipelines.models.device import Compute
from pipelines.models.run import Run
from tcam.model.backbone import Pyramid
from tcam.model.level_head import sixteenth
from tcam.model.network import FrameCamNet
from tcam.types import ClipBatch, VideoIndex, VideoRecord
from tcam.video.clips import spread_frames
from tcam.video.dataset import OpenReaders

FrameKey = tuple[str, int]
"""A video's id and a frame index."""

ReadFrames = Callable[[Sequence[FrameKey]], Tensor]
"""Returns some frames, uint8 ``[n, 3, H, W]``."""

_MOST_BYTES: Final = 2 * 1024**3
"""Memory for features. Frames beyond it are read and computed again each time, with the same result."""

_FITTED_FRAMES: Final = 256
_BATCH: Final = 16

_Parts = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class FrameReader:
    """Reads frames of any of some videos, whole and resized."""

    records: Mapping[str, VideoRecord]
    readers: OpenReaders

    @classmethod
    def of_run(cls, run: Run) -> FrameReader:
        """Return a reader for all videos of a run, at the size of its network's input."""
        records = {record.video_id: record for record in (*run.index.records, *run.background)}
        return cls(records, OpenReaders(run.input_size))

    def __call__(self, keys: Sequence[FrameKey]) -> Tensor:
        """Read frames, uint8 ``[n, 3, H, W]``."""
        videos = groupby(keys, key=lambda key: key[0])
        return torch.cat([self.readers.read(self.records[video], [i for _, i in own]) for video, own in videos])


@dataclass(frozen=True, slots=True)
class FrozenFeatures:
    """Keeps, of each whole frame, what class head, CAM, walk and ``LevelHead`` read: two levels and the last features.

    They are rounded to 16 bits, whether kept or not, so that the result does not depend on the memory. ``same`` names
    the video whose features stand for those of another, where a video is listed once for each of its tags.
    """

    compute: Compute
    read: ReadFrames
    kept: dict[FrameKey, _Parts] = field(default_factory=dict)
    same: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_run(cls, run: Run) -> FrozenFeatures | None:
        """Return an empty memory where the run's settings allow one, see ``RunConfig.keeps_features``."""
        if not run.config.keeps_features:
            return None
        several = [record for record in run.index.records if record.also]
        first = {record.cache_path or record.path: record.video_id for record in reversed(several)}
        same = {record.video_id: first[record.cache_path or record.path] for record in several}
        return cls(run.compute, FrameReader.of_run(run), same=same)

    def of_batch(self, network: FrameCamNet, batch: ClipBatch) -> Pyramid:
        """Return the features of all frames of a batch, clip by clip."""
        indices = batch.frame_index.tolist()
        return self(network, [(name, i) for name, clip in zip(batch.video_id, indices, strict=True) for i in clip])

    @torch.no_grad()
    def __call__(self, network: FrameCamNet, keys: Sequence[FrameKey]) -> Pyramid:
        """Return the features of some frames: two levels at 1/16 of the frame (``sixteenth``) and the last features.

        Args:
            network: with the frozen backbone, on the device.
            keys: the frames; only those that are not kept are read, once.

        Raises:
            VideoError: a video cannot be read.
        """
        keys = [(self.same.get(video, video), index) for video, index in keys]
        new = list(dict.fromkeys(key for key in keys if key not in self.kept))
        found: dict[FrameKey, _Parts] = {}
        for start in range(0, len(new), _BATCH):
            found.update(self._look(network, new[start : start + _BATCH]))
        columns = zip(*(found.get(key) or self.kept[key] for key in keys), strict=True)
        fine, middle, last = (torch.stack(column).to(self.compute.device).float() for column in columns)
        return Pyramid((fine, middle), last)

    def _look(self, network: FrameCamNet, keys: Sequence[FrameKey]) -> dict[FrameKey, _Parts]:
        """Compute the features of frames, and keep them while there is room."""
        frames = self.read(keys).to(self.compute.device)
        with self.compute.autocast():
            pyramid = network.pyramid(frames)
        size = (frames.shape[2], frames.shape[3])
        parts = [part.half().cpu() for part in (*sixteenth(pyramid.levels, size), pyramid.last)]
        found: dict[FrameKey, _Parts] = {key: tuple(part[i].clone() for part in parts) for i, key in enumerate(keys)}  # type: ignore[misc]
        each = _bytes(found[keys[0]])
        room = max(_MOST_BYTES // each - len(self.kept), 0)
        self.kept.update(dict(list(found.items())[:room]))
        return found


def _bytes(parts: _Parts) -> int:
    return sum(part.nbytes for part in parts)


def mirror_some(batch: ClipBatch, pyramid: Pyramid, generator: torch.Generator) -> tuple[ClipBatch, Pyramid]:
    """Mirror each clip of a batch, with its maps and features, with probability one half."""
    clips, length = batch.frames.shape[:2]
    chosen = torch.rand(clips, generator=generator, device=generator.device) < 0.5

    def mirrored(part: Tensor, which: Tensor) -> Tensor:
        return torch.where(which.view(-1, *[1] * (part.ndim - 1)), part.flip(-1), part)

    each = chosen.repeat_interleave(length)
    cams = None if batch.cams is None else mirrored(batch.cams, chosen)
    turned = ClipBatch(mirrored(batch.frames, chosen), cams, batch.frame_index, batch.label, batch.video_id)
    levels = tuple(mirrored(level, each) for level in pyramid.levels)
    return turned, Pyramid(levels, mirrored(pyramid.last, each))


def last_features(network: FrameCamNet, features: FrozenFeatures, index: VideoIndex) -> Tensor:
    """Return the last features ``[N, D, h, w]`` of at most 256 training frames, spread over all shots."""
    frames = [(r.video_id, i) for r in index.of_split("train") for shot in r.shots for i in spread_frames(shot, 8)]
    chosen = [frames[place] for place in spread_out(len(frames), _FITTED_FRAMES)]
    network.eval()
    parts = [features(network, chosen[i : i + _BATCH]).last for i in range(0, len(chosen), _BATCH)]
    return torch.cat(parts)
