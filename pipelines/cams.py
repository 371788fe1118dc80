"""Stage "cams": the CAM of the tag's class for every training frame, one memory-mapped array per shot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.config import CamSettings, TemporalSettings
from pipelines.files import write_json
from pipelines.localizer import Localizer, class_activation
from pipelines.runlog import progress_bar
from tcam.errors import DataError
from tcam.files import replacing
from tcam.supervision.temporal import overheat, temporal_max_pool
from tcam.types import Shot, Size, VideoIndex, VideoRecord
from tcam.video.clips import neighbours
from tcam.video.dataset import open_record


def shot_file(folder: Path, position: int, shot: Shot) -> Path:
    """Name the array of one shot of the record at ``position`` of the index."""
    return folder / f"{position:06d}-{shot.start:07d}.npy"


def write_cams(index: VideoIndex, localizer: Localizer, folder: Path, *, settings: CamSettings, size: Size) -> None:
    """Write float16 ``[frames, h, w]`` in 0..1 for every shot of the training split; shots already there are kept."""
    todo = [
        (i, record, shot) for i, record in enumerate(index.records) if record.split == "train" for shot in record.shots
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with progress_bar() as bar:
        task = bar.add_task("CAM cache", total=sum(len(shot) for _, _, shot in todo))
        for position, record, shot in todo:
            path = shot_file(folder, position, shot)
            if not path.exists():
                maps = _shot_cams(record, shot, localizer, batch=settings.batch, size=size)
                with replacing(path) as temporary, temporary.open("wb") as stream:
                    np.save(stream, maps)
            bar.advance(task, len(shot))
    write_json(
        folder / "header.json", {"method": settings.method, "input": list(size), "classes": list(index.class_names)}
    )


@torch.inference_mode()
def _shot_cams(record: VideoRecord, shot: Shot, localizer: Localizer, *, batch: int, size: Size) -> np.ndarray:
    parts = []
    with open_record(record, size) as reader:
        for start in range(shot.start, shot.stop, batch):
            frames = reader.read(range(start, min(start + batch, shot.stop))).to(localizer.compute.device)
            with localizer.compute.autocast():
                output = localizer.network(frames)
            labels = torch.full((len(frames),), record.label, device=frames.device)
            parts.append(class_activation(localizer, frames, output=output, labels=labels).half().cpu())
    return torch.cat(parts).numpy()


@dataclass(frozen=True)
class CamCache:
    """Reads cached CAMs, each pooled with its temporal neighbours (CAM-TMP, TCAM arXiv:2208.14542 section 3).

    Called with a record, its shot and T frame indices it gives float32 ``[T, h, w]`` in 0..1.
    """

    folder: Path
    positions: dict[str, int]
    temporal: TemporalSettings

    @classmethod
    def open(cls, folder: Path, index: VideoIndex, temporal: TemporalSettings) -> CamCache:
        """Open a finished cache of this index."""
        return cls(folder, {record.video_id: i for i, record in enumerate(index.records)}, temporal)

    def __call__(self, record: VideoRecord, shot: Shot, frames: Sequence[int]) -> Tensor:
        """Give the pooled CAMs of some frames of a shot.

        Raises:
            DataError: the cache lacks the shot.
        """
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
