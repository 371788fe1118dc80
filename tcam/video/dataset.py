"""Clips for training and fixed frames for evaluation, as torch data sets for any number of workers.

An item is addressed by ``(epoch, slot)``, and all its randomness comes from a generator seeded by both. So the clips do
not depend on the number of workers, and are the same in a resumed run.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from tcam.types import ClipBatch, Shot, Size, VideoRecord
from tcam.video.reader import ClipReader, DecodedFrame, stream_frames
from tcam.video.transforms import CropFlip, sample_crop_flip, whole_frame

ReadCams = Callable[[VideoRecord, Shot, Sequence[int]], Tensor]
"""Returns the maps of some frames of a shot, float ``[T, h, w]`` in 0..1."""

ChooseFrames = Callable[[Shot, torch.Generator], Sequence[int]]
"""Draws the frames of one clip of a shot, ascending, such as ``FrameSampler``."""

_MAX_OPEN: Final = 4
"""Readers kept open per worker: an open decoder costs tens of megabytes."""


@dataclass(frozen=True, slots=True)
class Clip:
    """T frames of one video: uint8 ``[T, 3, H, W]``, maps ``[T, H, W]`` or None, int64 ``[T]`` indices, the tag."""

    frames: Tensor
    cams: Tensor | None
    frame_index: Tensor
    label: int
    video_id: str


def collate_clips(items: Sequence[Clip]) -> ClipBatch:
    """Stack clips of equal length.

    Raises:
        ValueError: no clip, or clips of different lengths, or only some with maps.
    """
    shapes = {(tuple(item.frames.shape), item.cams is None) for item in items}
    if len(shapes) != 1:
        raise ValueError(f"expected clips of one shape, all with or all without maps, got {sorted(shapes)}")
    cams = [item.cams for item in items if item.cams is not None]
    return ClipBatch(
        frames=torch.stack([item.frames for item in items]),
        cams=torch.stack(cams) if cams else None,
        frame_index=torch.stack([item.frame_index for item in items]),
        label=torch.tensor([item.label for item in items]),
        video_id=tuple(item.video_id for item in items),
    )


class ClipDataset(Dataset[Clip]):
    """One random clip of every slot per epoch; its T frames get the same random crop and flip.

    Items are addressed by ``(epoch, slot)``; see ``EpochBatches``.

    Args:
        slots: the shots to draw from, each with its video.
        resize: (height, width) to which frames and maps are resized; the aspect ratio is not kept (TCAM).
        crop: size of the random crop.
        choose_frames: draws the frames of a clip.
        seed: seed of all randomness.
        read_cams: returns the maps of the drawn frames; None for clips without maps.
        flip: whether clips may be mirrored.
        read_frames: whether frames are read; otherwise they are black, for a training that has seen them.
    """

    def __init__(
        self,
        slots: Sequence[tuple[VideoRecord, Shot]],
        *,
        resize: Size,
        crop: Size,
        choose_frames: ChooseFrames,
        seed: int,
        read_cams: ReadCams | None = None,
        flip: bool = True,
        read_frames: bool = True,
    ) -> None:
        self._slots, self._seed, self._choose_frames = tuple(slots), seed, choose_frames
        self._flip = flip
        self._resize, self._crop = resize, crop
        self._read_cams = read_cams
        self._readers = OpenReaders(resize) if read_frames else BlackFrames(resize)

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, key: tuple[int, int]) -> Clip:
        epoch, slot = key
        record, shot = self._slots[slot]
        generator = seeded_generator(self._seed, epoch, slot)
        indices = self._choose_frames(shot, generator)
        transform = sample_crop_flip(self._resize, self._crop, generator)
        if not self._flip:
            transform = replace(transform, flipped=False)
        return _read_clip(self._readers, record, shot, indices, transform, self._read_cams)


class FrameDataset(Dataset[Clip]):
    """Fixed frames, whole and resized, for evaluation and for making CAMs.

    Args:
        frames: video and frame index of every item.
        size: (height, width) of the frames and maps returned.
        read_cams: returns the maps of the frames; None for items without maps.
        read_frames: whether frames are read; otherwise they are black, for whoever has seen them.
    """

    def __init__(
        self,
        frames: Sequence[tuple[VideoRecord, int]],
        *,
        size: Size,
        read_cams: ReadCams | None = None,
        read_frames: bool = True,
    ) -> None:
        self._frames, self._transform = tuple(frames), whole_frame(size)
        self._read_cams = read_cams
        self._readers = OpenReaders(size) if read_frames else BlackFrames(size)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, key: int) -> Clip:
        record, index = self._frames[key]
        shot = next((s for s in record.shots if s.start <= index < s.stop), None)
        if shot is None:
            raise ValueError(f"frame {index} lies in no shot of {record.video_id}")
        return _read_clip(self._readers, record, shot, [index], self._transform, self._read_cams)


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Yields batches of ``(epoch, slot)``: every slot once, in an order drawn from the seed and the epoch.

    The clips of a batch have one length, so that it is one tensor without padding. Slots wait, in order, until there
    are enough of their length; the rest make short batches at the end, short clips first. The training loop sets
    ``epoch`` before each pass; the global random state is not used.

    Args:
        lengths: number of frames of each slot's clip.
        frames_per_batch: most frames of a batch; a longer clip is a batch of its own.
        seed: seed of the order.

    Raises:
        ValueError: no slots, or a length or ``frames_per_batch`` below 1.
    """

    def __init__(self, lengths: Sequence[int], *, frames_per_batch: int, seed: int) -> None:
        if not lengths or min(lengths) < 1 or frames_per_batch < 1:
            found = f"{len(lengths)} clips of {min(lengths, default=0)} frames or more and {frames_per_batch}"
            raise ValueError(f"lengths must not be empty, they and frames_per_batch must be at least 1, got {found}")
        self._lengths, self._seed = tuple(lengths), seed
        self._clips_per_batch = {length: max(1, frames_per_batch // length) for length in sorted(set(lengths))}
        self.epoch = 0

    def __len__(self) -> int:
        counts = Counter(self._lengths)
        return sum(math.ceil(counts[length] / clips) for length, clips in self._clips_per_batch.items())

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        order = torch.randperm(len(self._lengths), generator=seeded_generator(self._seed, epoch, -1))
        waiting: dict[int, list[tuple[int, int]]] = {length: [] for length in self._clips_per_batch}
        for slot in order.tolist():
            length = self._lengths[slot]
            waiting[length].append((epoch, slot))
            if len(waiting[length]) == self._clips_per_batch[length]:
                yield waiting[length]
                waiting[length] = []
        yield from (batch for batch in waiting.values() if batch)


def seeded_generator(seed: int, epoch: int, slot: int) -> torch.Generator:
    """Return a generator that depends only on the three numbers: the same on every machine and in every process."""
    digest = hashlib.blake2b(f"{seed} {epoch} {slot}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


class OpenReaders:
    """The most recently used readers, one per video; a worker that gets a copy opens its own."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._open: OrderedDict[str, ClipReader] = OrderedDict()
        self._owner = os.getpid()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict(), "_owner": -1}

    def read(self, record: VideoRecord, indices: Sequence[int]) -> Tensor:
        """Read frames of a video, uint8 ``[T, 3, *size]``, from its cache file where it has one."""
        if self._owner != os.getpid():
            self._open, self._owner = OrderedDict(), os.getpid()
        reader = self._open.pop(record.video_id, None) or open_record(record, self._size)
        self._open[record.video_id] = reader
        while len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)[1].close()
        return torch.from_numpy(reader.read(indices))


class BlackFrames:
    """Stands for ``OpenReaders`` where only the shape of frames matters."""

    def __init__(self, size: Size) -> None:
        self._size = size

    def read(self, _: VideoRecord, indices: Sequence[int]) -> Tensor:
        """Return black frames, uint8 ``[T, 3, *size]``."""
        return torch.zeros(len(indices), 3, *self._size, dtype=torch.uint8)


def open_record(record: VideoRecord, size: Size) -> ClipReader:
    """Return a reader for the cache file of a video (which suits decord), or for the original if there is none."""
    if record.cache_path is not None:
        return ClipReader(Path(record.cache_path), decoder="decord", num_frames=record.num_frames, size=size)
    return open_original(record, size)


def open_original(record: VideoRecord, size: Size) -> ClipReader:
    """Return a reader for the original of a video."""
    return ClipReader(
        Path(record.path),
        decoder=record.decoder,
        num_frames=record.num_frames,
        size=size,
        runs=record.runs,
    )


def stream_original(
    record: VideoRecord, *, size: Size, keep_original: bool = False, only: Collection[int] | None = None
) -> Iterator[DecodedFrame]:
    """Yield the frames of a video's original, in order; see ``stream_frames``."""
    return stream_frames(Path(record.path), size=size, keep_original=keep_original, only=only, runs=record.runs)


def _read_clip(
    readers: OpenReaders | BlackFrames,
    record: VideoRecord,
    shot: Shot,
    indices: Sequence[int],
    transform: CropFlip,
    read_cams: ReadCams | None,
) -> Clip:
    return Clip(
        frames=transform.frames(readers.read(record, indices)),
        cams=None if read_cams is None else transform.maps(read_cams(record, shot, indices)),
        frame_index=torch.tensor(list(indices), dtype=torch.int64),
        label=record.label,
        video_id=record.video_id,
    )
