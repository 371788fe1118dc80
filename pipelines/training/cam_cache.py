"""Stage "cams": cache the CAM of the tag's class for every training frame, in one memory-mapped array per shot."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
import torch
from torch import Tensor

from pipelines.config.localizer_groups import TemporalSettings
from pipelines.config.schema import CamSettings
from pipelines.data.failures import VideoFailure, write_failures
from pipelines.models.localizer import NetworkLocalizer, PackedLocalizer, class_activation
from pipelines.parallel.map import ItemFailure, ordered_map
from pipelines.parallel.placement import COPY_FRAMES, Placement, model_time_limit_s, split_range
from pipelines.run.console import console, item_bar
from pipelines.run.files import write_json
from pipelines.training.frozen_features import FrozenFeatures
from tcam.errors import DataError, VideoError, some_of
from tcam.files import replacing
from tcam.supervision.joint_walk import JointWalk, affinity_features
from tcam.supervision.temporal import overheat, temporal_max_pool
from tcam.types import NO_CLASS, FrameOutput, Shot, Size, VideoIndex, VideoRecord
from tcam.video.clips import neighbours, spread_frames
from tcam.video.dataset import OpenReaders


def shot_file(folder: Path, position: int, shot: Shot) -> Path:
    """Return the file of one shot of the record at ``position`` of the index."""
    return folder / f"{position:06d}-{shot.start:07d}.npy"


@dataclass(frozen=True, slots=True)
class ShotPart:
    """A work item: some cached frames of one shot of the record at ``position`` of the index.

    ``kept`` are all the frames of the shot that are cached; the part has those at the places ``own``.
    """

    position: int
    record: VideoRecord
    shot: Shot
    kept: Sequence[int]
    own: range

    def __str__(self) -> str:
        return f"{self.record.video_id} {self.kept[self.own.start]}-{self.kept[self.own.stop - 1] + 1}"


@dataclass(frozen=True, slots=True)
class MakeCams:
    """A factory for workers: loads the model and returns what makes the CAMs of a part; ``walk`` makes them agree."""

    localizer: PackedLocalizer
    batch: int
    size: Size
    walk: JointWalk | None = None
    features: FrozenFeatures | None = None

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
    frames_per_shot: int | None = None,
    features: FrozenFeatures | None = None,
) -> None:
    """Write float16 ``[frames, h, w]`` in 0..1 for every shot of the training split; shots already there are kept.

    ``frames_per_shot`` caches only so many frames, evenly spread. ``features`` keeps what the backbone saw; the work is
    then done in this process. Each forward pass has the same frames however the work is distributed, so the files are
    the same byte for byte.

    Raises:
        DataError: a video cannot be read; ``errors.csv`` lists it, and the shots of all others are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(_missing_parts(index, folder, settings, frames_per_shot))
    placement = placement if features is None else Placement(0)
    with item_bar("CAM cache") as progress:
        results = ordered_map(
            MakeCams(PackedLocalizer.pack(localizer), settings.batch, size, walk_of(settings), features),
            parts,
            placement=placement.settled(localizer.compute.device.type, sum(len(part.own) for part in parts)),
            time_limit_s=lambda part: model_time_limit_s(len(part.own)),
            memory_limit_mb=memory_limit_mb,
            holds_model=True,
            progress=progress,
        )
        failures, filled = _save_shots(zip(parts, results, strict=True), folder)
    if failures:
        _refuse(failures, folder / "errors.csv")
    _warn_of_empty(index, {(part.position, part.shot) for part in parts}, filled)
    facts = {"method": settings.method, "refine": settings.refine}
    write_json(folder / "header.json", {**facts, "input": list(size), "classes": list(index.class_names)})


def _missing_parts(
    index: VideoIndex, folder: Path, settings: CamSettings, frames_per_shot: int | None
) -> Iterator[ShotPart]:
    for position, record in enumerate(index.records):
        for shot in record.shots if record.split == "train" else ():
            if not shot_file(folder, position, shot).exists():
                kept = spread_frames(shot, frames_per_shot)
                for own in split_range(0, len(kept), batch=settings.batch, most=_most_frames(settings)):
                    yield ShotPart(position, record, shot, kept, own)


def _most_frames(settings: CamSettings) -> int:
    """Return the most frames of a part: more where each part also needs those that walk with it."""
    return COPY_FRAMES if settings.refine == "none" else 4 * COPY_FRAMES


def _refuse(failures: Sequence[VideoFailure], table: Path) -> NoReturn:
    write_failures(failures, table)
    first = failures[0]
    raise DataError(
        f"the CAMs of {len(failures)} videos could not be made, listed in {table} "
        f"({first.video_id}: {first.reason}); the others are kept"
    )


def _warn_of_empty(index: VideoIndex, made: Collection[tuple[int, Shot]], filled: Collection[int]) -> None:
    """Name the classes without a CAM above 0, of those whose shots were all made now."""
    labels: dict[int, bool] = {}
    for position, record in enumerate(index.records):
        if record.split == "train" and record.label not in (*filled, NO_CLASS):
            now = all((position, shot) in made for shot in record.shots)
            labels[record.label] = labels.get(record.label, True) and now
    names = [index.class_names[label] for label, now in sorted(labels.items()) if now]
    if names:
        console.print(
            f"warning: every CAM of {some_of(names)} is empty, so the localizer learns that these videos hold no "
            "object; look at the videos, or choose another cam.method",
            markup=False,
        )


def _save_shots(
    results: Iterable[tuple[ShotPart, np.ndarray | ItemFailure]], folder: Path
) -> tuple[list[VideoFailure], set[int]]:
    """Join the parts of each shot in its file; a shot with a failed part has no file.

    Returns:
        The failures, and the labels that have a CAM above 0.
    """
    failures: dict[str, VideoFailure] = {}
    filled: set[int] = set()
    for (position, shot), found in itertools.groupby(results, key=lambda pair: (pair[0].position, pair[0].shot)):
        try:
            with replacing(shot_file(folder, position, shot)) as temporary, temporary.open("wb") as stream:
                for part, maps in found:
                    filled |= {part.record.label} if _append(stream, part, maps) else set()
        except VideoError as error:
            failures.setdefault(part.record.video_id, VideoFailure(part.record.video_id, str(error)))
    return list(failures.values()), filled


def _append(stream: IO[bytes], part: ShotPart, maps: np.ndarray | ItemFailure) -> bool:
    """Write the CAMs of a part, and return whether any is above 0."""
    if isinstance(maps, ItemFailure):
        raise VideoError(maps.reason)
    if part.own.start == 0:
        about = {"descr": maps.dtype.str, "fortran_order": False, "shape": (len(part.kept), *maps.shape[1:])}
        np.lib.format.write_array_header_1_0(stream, about)
    stream.write(maps.tobytes())
    return bool(maps.any())


def walk_of(settings: CamSettings) -> JointWalk | None:
    """Return the walk that the settings ask for."""
    return JointWalk(**settings.walk.model_dump()) if settings.refine == "joint" else None


def _part_cams(localizer: NetworkLocalizer, readers: OpenReaders, work: MakeCams, part: ShotPart) -> np.ndarray:
    """Return the CAMs of a part, float16 ``[frames, h, w]``; a walk also reads the frames that share its blocks."""
    walk = work.walk
    wanted = part.own if walk is None else walk.context(part.own, range(len(part.kept)))
    first = wanted.start - wanted.start % work.batch  # passes of the same frames in every part
    last = min(wanted.stop + -wanted.stop % work.batch, len(part.kept))
    made, seen = [], []
    with torch.inference_mode():
        for start in range(first, last, work.batch):
            chunk = [part.kept[place] for place in range(start, min(start + work.batch, last))]
            maps, levels = _chunk_cams(localizer, readers, work, part.record, chunk)
            made.append(maps)
            seen += [] if walk is None else [affinity_features(levels, work.size)]
        maps = torch.cat(made)
        if walk is not None:
            near = slice(wanted.start - first, wanted.stop - first)
            maps = walk(maps[near], torch.cat(seen)[near])
            maps = maps[part.own.start - wanted.start : part.own.stop - wanted.start]
    return maps.half().cpu().numpy()


def _chunk_cams(
    localizer: NetworkLocalizer, readers: OpenReaders, work: MakeCams, record: VideoRecord, chunk: list[int]
) -> tuple[Tensor, Sequence[Tensor]]:
    """Return the CAMs of the tag in some frames, and the features that they were made from."""
    network, device = localizer.network, localizer.compute.device
    labels = torch.full((len(chunk),), record.label, device=device)
    if work.features is not None:
        keys = [(record.video_id, index) for index in chunk]
        pyramid = work.features(network, keys)
        frames = torch.empty(len(chunk), 3, *work.size, dtype=torch.uint8, device="meta")
    else:
        frames = readers.read(record, chunk).to(device)
        with localizer.compute.autocast():
            pyramid = network.pyramid(frames)
    if localizer.method == "decoder":
        return localizer.map_features(pyramid, frames, labels).maps, pyramid.levels
    with localizer.compute.autocast():
        output = FrameOutput(network.head(pyramid.last), pyramid.last, None, pyramid.attention)
    return class_activation(localizer, frames, output=output, labels=labels), pyramid.levels


@dataclass(frozen=True)
class CamCache:
    """Reads cached CAMs, each max-pooled with its temporal neighbours (CAM-TMP, TCAM arXiv:2208.14542 section 3).

    Called with a record, its shot and T frame indices, it returns float32 ``[T, h, w]`` in 0..1.
    """

    folder: Path
    positions: dict[str, int]
    temporal: TemporalSettings
    frames_per_shot: int | None = None

    @classmethod
    def open(
        cls, folder: Path, index: VideoIndex, temporal: TemporalSettings, frames_per_shot: int | None = None
    ) -> CamCache:
        """Open a finished cache of this index, with so many frames of each shot (None: all)."""
        return cls(folder, {record.video_id: i for i, record in enumerate(index.records)}, temporal, frames_per_shot)

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
        kept = spread_frames(shot, self.frames_per_shot)
        window = neighbours(kept.index(frame), Shot(0, len(kept)), count=self.temporal.neighbours, mode=mode)
        maps = torch.from_numpy(stored[window[0] : window[-1] + 1].astype(np.float32))
        if self.temporal.neighbours and self.temporal.heat:
            maps = overheat(maps, self.temporal.heat)
        return temporal_max_pool(maps[None], len(window))[0, -1]
