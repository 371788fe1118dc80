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
from tcam.video.dataset import open_original

MOST_PICTURES = 12
MOST_COLUMNS = 4


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
    chosen = chosen[::step][:MOST_PICTURES]
    pictures = draw_maps(chosen, truth, localizers, thresholds, class_names=index.class_names, size=size)
    environment = folder / "env.json"
    metadata = json.loads(environment.read_text(encoding="utf-8")) if environment.is_file() else {}
    title = f"{folder.resolve().name}: {split} split"
    return write_report(folder, title=title, rows=rows, pictures=pictures, video=video, metadata=metadata)


def draw_maps(
    records: Sequence[VideoRecord],
    truth: Sequence[FrameTruth],
    localizers: Mapping[str, Localizer],
    thresholds: Mapping[str, float],
    *,
    class_names: Sequence[str],
    size: Size,
) -> Iterator[tuple[str, Tensor]]:
    """Draw one frame of each video: as it is with the true box, then as each localizer sees it with the box it finds.

    Args:
        records: the videos; one that cannot be read is left out.
        truth: boxes of any videos. The middle annotated frame of a video is drawn, its middle frame where it has none.
        localizers: by name, in the order of the panels.
        thresholds: the map threshold of each, by the same names.
        class_names: by label.
        size: network input, (height, width).

    Yields:
        (caption that names the panels in order, uint8 ``[3, H, W]``): up to four panels side by side, then a new row.
    """
    for record in records:
        annotated = [item for item in truth if item.video_id == record.video_id]
        middle = annotated[len(annotated) // 2] if annotated else None
        frame, boxes = (middle.frame_index, middle.boxes) if middle else (record.num_frames // 2, ())
        try:
            small, full = _read(record, frame, size), _read(record, frame, record.size)
        except VideoError:
            continue  # it is in errors.csv already
        panels = [draw_overlay(full, None, truth=boxes, caption=class_names[record.label])]
        for name, localizer in localizers.items():
            one_map = localizer(small[None], torch.tensor([record.label])).maps[0].cpu()
            box = extract_box(one_map, thresholds[name], FrameGeometry.plain_resize(record.size, size))
            panels.append(draw_overlay(full, box, map=one_map, truth=boxes, caption=name))
        yield f"{record.video_id}, frame {frame}: as it is, {', '.join(localizers)}", _tile(panels)


def _tile(panels: Sequence[Tensor]) -> Tensor:
    """Lay panels of one size ``[3, H, W]`` in rows of up to four, the last row filled up with black."""
    columns = min(len(panels), MOST_COLUMNS)
    missing = -len(panels) % columns
    filled = [*panels, *[torch.zeros_like(panels[0])] * missing]
    rows = [torch.cat(filled[start : start + columns], dim=2) for start in range(0, len(filled), columns)]
    return torch.cat(rows, dim=1)


def _read(record: VideoRecord, frame: int, size: Size) -> Tensor:
    with open_original(record, size) as reader:
        return reader.read([frame])[0]
