"""The report of one run: its table, and frames of test videos with box and map drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipelines.localizer import Localizer
from pipelines.overlay import draw_overlay
from pipelines.report import write_report
from tcam.errors import VideoError
from tcam.localization.corloc import CorLocResult
from tcam.localization.extract import extract_box
from tcam.types import FrameGeometry, FrameTruth, Size, VideoIndex, VideoRecord
from tcam.video.reader import ClipReader

MOST_PICTURES = 12


def write_run_report(
    folder: Path,
    rows: Sequence[tuple[str, CorLocResult]],
    localizers: Mapping[str, Localizer],
    thresholds: Mapping[str, float],
    index: VideoIndex,
    truth: Sequence[FrameTruth],
    *,
    size: Size,
    split: str = "test",
    video: Path | None = None,
) -> Path:
    """Write ``folder/report``: the table and, for up to 12 videos of the split, a frame as each localizer sees it."""
    chosen = [record for record in index.records if split in (record.split, "all")]
    step = max(1, len(chosen) // MOST_PICTURES)
    pictures = _pictures(chosen[::step][:MOST_PICTURES], localizers, thresholds, index.class_names, truth, size)
    environment = folder / "env.json"
    metadata = json.loads(environment.read_text(encoding="utf-8")) if environment.is_file() else {}
    title = f"{folder.resolve().name}: {split} split"
    return write_report(folder, title=title, rows=rows, pictures=pictures, video=video, metadata=metadata)


def _pictures(
    records: Sequence[VideoRecord],
    localizers: Mapping[str, Localizer],
    thresholds: Mapping[str, float],
    class_names: Sequence[str],
    truth: Sequence[FrameTruth],
    size: Size,
) -> Iterator[tuple[str, Tensor]]:
    for record in records:
        annotated = [item for item in truth if item.video_id == record.video_id]
        middle = annotated[len(annotated) // 2] if annotated else None
        frame = middle.frame_index if middle else record.num_frames // 2
        try:
            small, full = _read(record, frame, size), _read(record, frame, record.size)
        except VideoError:
            continue  # it is in errors.csv already
        panels = []
        for name, localizer in localizers.items():
            one_map = localizer(small[None], torch.tensor([record.label])).maps[0].cpu()
            box = extract_box(one_map, thresholds[name], FrameGeometry.plain_resize(record.size, size))
            boxes = middle.boxes if middle else ()
            panels.append(
                draw_overlay(full, box, map=one_map, truth=boxes, caption=f"{name}: {class_names[record.label]}")
            )
        yield f"{record.video_id}, frame {frame}", torch.cat(panels, dim=2)


def _read(record: VideoRecord, frame: int, size: Size) -> Tensor:
    decoder = record.decoder
    with ClipReader(
        Path(record.path), decoder=decoder, num_frames=record.num_frames, size=size, rotation=record.rotation
    ) as reader:
        return reader.read([frame])[0]
