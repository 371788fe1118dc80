"""Features of a frozen backbone, computed once per frame and kept in memory for all epochs and stages of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor

from pipelines.config.schema import RunConfig
from pipelines.evaluation.sampling import spread_out
from pipelines.models.device import Compute
from tcam.model.backbone import Pyramid
from tcam.model.level_head import sixteenth
from tcam.model.network import FrameCamNet
from tcam.types import ClipBatch, Size, VideoIndex, VideoRecord
from tcam.video.clips import spread_frames
from tcam.video.dataset import OpenReaders

FrameKey = tuple[str, int]
"""A video's id and a frame index."""

_MOST_BYTES: Final = 2 * 1024**3
"""Memory for features. Frames beyond it are computed again each time, with the same result."""

_FITTED_FRAMES: Final = 256
_BATCH: Final = 16

_Parts = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class FrozenFeatures:
    """Keeps, of each whole frame, what class head, CAM, walk and ``LevelHead`` read: two levels and the last features.

    They are rounded to 16 bits, whether kept or not, so that the result does not depend on the memory.
    """

    compute: Compute
    kept: dict[FrameKey, _Parts]

    @classmethod
    def for_settings(cls, config: RunConfig, compute: Compute) -> FrozenFeatures | None:
        """Return an empty memory where the settings allow one, see ``RunConfig.keeps_features``."""
        return cls(compute, {}) if config.keeps_features else None

    def of_batch(self, network: FrameCamNet, batch: ClipBatch) -> Pyramid:
        """Return the features of all frames of a batch, clip by clip."""
        frames, indices = batch.frames.flatten(0, 1), batch.frame_index.tolist()
        keys = [(video, index) for video, clip in zip(batch.video_id, indices, strict=True) for index in clip]
        return self(network, keys, lambda places: frames[places])

    @torch.no_grad()
    def __call__(self, network: FrameCamNet, keys: Sequence[FrameKey], read: Callable[[list[int]], Tensor]) -> Pyramid:
        """Return the features of some frames: two levels at 1/16 of the frame (``sixteenth``) and the last features.

        Args:
            network: with the frozen backbone, on the device.
            keys: the frames, each once.
            read: returns uint8 ``[n, 3, H, W]`` of the frames at some places of ``keys``; called for new ones only.
        """
        new = [place for place, key in enumerate(keys) if key not in self.kept]
        found: dict[FrameKey, _Parts] = {}
        if new:
            frames = read(new).to(self.compute.device)
            with self.compute.autocast():
                pyramid = network.pyramid(frames)
            size = (frames.shape[2], frames.shape[3])
            parts = [part.half().cpu() for part in (*sixteenth(pyramid.levels, size), pyramid.last)]
            found = {keys[place]: tuple(part[i].clone() for part in parts) for i, place in enumerate(new)}  # type: ignore[misc]
            room = _MOST_BYTES - len(self.kept) * _bytes(next(iter(found.values())))
            self.kept.update(dict(list(found.items())[: max(room // _bytes(next(iter(found.values()))), 0)]))
        columns = zip(*(found.get(key) or self.kept[key] for key in keys), strict=True)
        fine, middle, last = (torch.stack(column).to(self.compute.device).float() for column in columns)
        return Pyramid((fine, middle), last)


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


def last_features(network: FrameCamNet, features: FrozenFeatures, index: VideoIndex, size: Size) -> Tensor:
    """Return the last features ``[N, D, h, w]`` of at most 256 training frames, spread over all shots."""
    frames = [(r, i) for r in index.of_split("train") for shot in r.shots for i in spread_frames(shot, 8)]
    chosen = [frames[place] for place in spread_out(len(frames), _FITTED_FRAMES)]
    readers, found = OpenReaders(size), []
    network.eval()
    for start in range(0, len(chosen), _BATCH):
        part = chosen[start : start + _BATCH]
        keys = [(record.video_id, index) for record, index in part]
        read = partial(_read, readers, part)
        found.append(features(network, keys, read).last)
    return torch.cat(found)


def _read(readers: OpenReaders, part: Sequence[tuple[VideoRecord, int]], places: list[int]) -> Tensor:
    return torch.cat([readers.read(part[place][0], [part[place][1]]) for place in places])
