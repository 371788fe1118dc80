"""Stage "cams": cache the CAM of the tag's class for every training frame, in one memory-mapped array per shot."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from pipelines.config.methods import TemporalSettings
from pipelines.config.schema import CamSettings
from pipelines.data.failures import VideoFailure, write_failures
from pipelines.models.localizer import NetworkLocalizer, PackedLocalizer, class_activation
from pipelines.parallel.map import ItemFailure, ordered_map
from pipelines.parallel.placement import COPY_FRAMES, Placement, model_time_limit_s, split_range
from pipelines.run.console import item_bar
from pipelines.run.files import write_json
from tcam.errors import DataError, VideoError
from tcam.files import replacing
from tcam.supervision.joint_walk import JointWalk, affinity_features
from tcam.supervision.temporal import overheat, temporal_max_pool
from tcam.types import NO_CLASS, FrameOutput, Shot, Size, VideoIndex, VideoRecord
from tcam.video.clips import neighbours
from tcam.video.dataset import OpenReaders


def shot_file(folder: Path, position: int, shot: Shot) -> Path:
    """Return the file of one shot of the record at ``position`` of the index."""
    return folder / f"{position:06d}-{shot.start:07d}.npy"


@dataclass(frozen=True, slots=True)
class ShotPart:
    """A work item: some frames of one shot of the record at ``position`` of the index."""

    position: int
    record: VideoRecord
    shot: Shot
    frames: range

    def __str__(self) -> str:
        return f"{self.record.video_id} {self.frames.start}-{self.frames.stop}"


@dataclass(frozen=True, slots=True)
class MakeCams:
    """A factory for workers: loads the model and returns what makes the CAMs of a part; ``walk`` makes them agree."""

    localizer: PackedLocalizer
    batch: int
    size: Size
    walk: JointWalk | None = None

    def __call__(self) -> Callable[[ShotPart], np.ndarray]:
        """Load the model."""
        return partial(_part_cams, self.localizer.unpack(), OpenReaders(self.size), self)


def write_cams(
    index: VideoIndex,
    localizer: NetworkLocalizer,
    folder: Path,
    *,
    settings: CamSettings,
    size: Size,
    placement: Placement,
    memory_limit_mb: float | None = None,
) -> None:
    """Write float16 ``[frames, h, w]`` in 0..1 for every shot of the training split; shots already there are kept.

    Each forward pass has the same frames however the work is distributed, so the files are the same byte for byte.

    Raises:
        DataError: a video cannot be read; ``errors.csv`` lists it, and the shots of all others are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        ShotPart(position, record, shot, frames)
        for position, record in enumerate(index.records)
        if record.split == "train"
        for shot in record.shots
        if not shot_file(folder, position, shot).exists()
        for frames in split_range(shot.start, shot.stop, batch=settings.batch, most=COPY_FRAMES)
    ]
    with item_bar("CAM cache") as progress:
        results = ordered_map(
            MakeCams(PackedLocalizer.pack(localizer), settings.batch, size, walk_of(settings)),
            parts,
            placement=placement.settled(localizer.compute.device.type, sum(len(part.frames) for part in parts)),
            time_limit_s=lambda part: model_time_limit_s(len(part.frames)),
            memory_limit_mb=memory_limit_mb,
            holds_model=True,
            progress=progress,
        )
        failures = _save_shots(zip(parts, results, strict=True), folder)
    if failures:
        write_failures(failures, folder / "errors.csv")
        first = failures[0]
        raise DataError(
            f"the CAMs of {len(failures)} videos could not be made, listed in {folder / 'errors.csv'} "
            f"({first.video_id}: {first.reason}); the others are kept"
        )
    facts = {"method": settings.method, "refine": settings.refine}
    write_json(folder / "header.json", {**facts, "input": list(size), "classes": list(index.class_names)})


def _save_shots(results: Iterable[tuple[ShotPart, np.ndarray | ItemFailure]], folder: Path) -> list[VideoFailure]:
    """Join the parts of each shot in its file; a shot with a failed part has no file."""
    failures: dict[str, VideoFailure] = {}
    for (position, shot), found in itertools.groupby(results, key=lambda pair: (pair[0].position, pair[0].shot)):
        try:
            with replacing(shot_file(folder, position, shot)) as temporary, temporary.open("wb") as stream:
                for part, maps in found:
                    _append(stream, part, maps)
        except VideoError as error:
            failures.setdefault(part.record.video_id, VideoFailure(part.record.video_id, str(error)))
    return list(failures.values())


def _append(stream: IO[bytes], part: ShotPart, maps: np.ndarray | ItemFailure) -> None:
    if isinstance(maps, ItemFailure):
        raise VideoError(maps.reason)
    if part.frames.start == part.shot.start:
        about = {"descr": maps.dtype.str, "fortran_order": False, "shape": (len(part.shot), *maps.shape[1:])}
        np.lib.format.write_array_header_1_0(stream, about)
    stream.write(maps.tobytes())


def walk_of(settings: CamSettings) -> JointWalk | None:
    """Return the walk that the settings ask for."""
    return JointWalk(**settings.walk.model_dump()) if settings.refine == "joint" else None


def _part_cams(localizer: NetworkLocalizer, readers: OpenReaders, work: MakeCams, part: ShotPart) -> np.ndarray:
    """Return the CAMs of a part, float16 ``[frames, h, w]``; a walk also reads the frames that share its windows."""
    shot = range(part.shot.start, part.shot.stop)
    wanted = part.frames if work.walk is None else work.walk.context(part.frames, shot)
    network, made, seen = localizer.network, [], []
    with torch.inference_mode():
        for start in range(wanted.start, wanted.stop, work.batch):
            frames = readers.read(part.record, range(start, min(start + work.batch, wanted.stop)))
            frames = frames.to(localizer.compute.device)
            with localizer.compute.autocast():
                pyramid = network.pyramid(frames)
                output = FrameOutput(network.head(pyramid.last), pyramid.last, None, pyramid.attention)
            labels = torch.full((len(frames),), part.record.label, device=frames.device)
            made.append(class_activation(localizer, frames, output=output, labels=labels))
            if work.walk is not None:
                seen.append(affinity_features(pyramid.levels, work.size))
        maps = torch.cat(made)
        if work.walk is not None:
            own = slice(part.frames.start - wanted.start, part.frames.stop - wanted.start)
            maps = work.walk(maps, torch.cat(seen))[own]
    return maps.half().cpu().numpy()


@dataclass(frozen=True)
class CamCache:
    """Reads cached CAMs, each max-pooled with its temporal neighbours (CAM-TMP, TCAM arXiv:2208.14542 section 3).

    Called with a record, its shot and T frame indices, it returns float32 ``[T, h, w]`` in 0..1.
    """

    folder: Path
    positions: dict[str, int]
    temporal: TemporalSettings

    @classmethod
    def open(cls, folder: Path, index: VideoIndex, temporal: TemporalSettings) -> CamCache:
        """Open a finished cache of this index."""
        return cls(folder, {record.video_id: i for i, record in enumerate(index.records)}, temporal)

    def __call__(self, record: VideoRecord, shot: Shot, frames: Sequence[int]) -> Tensor:
        """Return the pooled CAMs of some frames of a shot; a shot without an object has CAMs of 0, so no seeds.

        Raises:
            DataError: the cache lacks the shot.
        """
        if record.label == NO_CLASS:
            return torch.zeros(len(frames), 1, 1)
        path = shot_file(self.folder, self.positions[record.video_id], shot)
        try:
            stored = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"CAM cache of {record.video_id} is unreadable ({error}); delete {self.folder}") from None
        return torch.stack([self._pooled(stored, frame, shot) for frame in frames])

    def _pooled(self, stored: np.ndarray, frame: int, shot: Shot) -> Tensor:
        mode = self.temporal.mode if self.temporal.neighbours else "instant"
        window = neighbours(frame, shot, count=self.temporal.neighbours, mode=mode)
        maps = torch.from_numpy(stored[window[0] - shot.start : window[-1] + 1 - shot.start].astype(np.float32))
        if self.temporal.neighbours and self.temporal.heat:
            maps = overheat(maps, self.temporal.heat)
        return temporal_max_pool(maps[None], len(window))[0, -1]
