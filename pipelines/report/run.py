"""The report of one run: its evaluation, its training, and frames of test videos with box and map drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.evaluation.results import Evaluation
from pipelines.inference.overlay import draw_overlay
from pipelines.models.engine import MOST_ON_CPU
from pipelines.models.localizer import NetworkLocalizer
from pipelines.models.refinement.walked import walked_frames
from pipelines.models.thresholds import read_tag_reasons, read_thresholds
from pipelines.report.check_sections import check_sections, tag_choice_section
from pipelines.report.checks import check_videos
from pipelines.report.page import LEAD, UNSCORED_LEAD, Sections, as_json, write_evaluation_report
from pipelines.report.pictures import ChosenFrame, Picture, choose_frames
from pipelines.report.sections import overlap_chart, size_chart, threshold_charts, training_charts, trajectory_charts
from pipelines.report.tables import published_for
from tcam.boxes.extract import extract_box
from tcam.errors import VideoError
from tcam.types import Box, FrameGeometry, FrameTruth, Size, VideoIndex, VideoRecord
from tcam.video.dataset import open_original
from tcam.video.pixels import Pixels

MOST_PICTURES = 12
_SHORT_SIDE: Final = 240
"""Pixels of the frames drawn for a page."""


@dataclass(frozen=True, slots=True)
class PictureSource:
    """What frames are drawn from: the localizers by name, the videos, their boxes and the size of the network input."""

    localizers: Mapping[str, NetworkLocalizer]
    index: VideoIndex
    truth: Sequence[FrameTruth]
    size: Size


def write_run_report(
    run: Path,
    evaluation: Evaluation,
    source: PictureSource,
    *,
    output: Path | None = None,
    thresholds: Mapping[str, float] | None = None,
    video: Path | None = None,
) -> Path:
    """Write the page of a run's evaluation; returns its path.

    Args:
        run: the run folder, for its settings, its environment and its training log.
        evaluation: its results; may hold no score.
        source: what frames are drawn from.
        output: folder of the page; ``run/report`` by default.
        thresholds: map threshold by localizer, used if the evaluation stored no frames.
        video: an mp4 to show.

    Raises:
        DataError: the folder cannot be written.
    """
    levels = thresholds or evaluation.thresholds
    sections = _sections(run, evaluation, source, levels)
    title = f"{run.resolve().name}: {evaluation.split} split"
    lead = LEAD if evaluation.scores else UNSCORED_LEAD
    return write_evaluation_report(output or run / "report", title, evaluation, sections, video=video, lead=lead)


def _sections(run: Path, evaluation: Evaluation, source: PictureSource, levels: Mapping[str, float]) -> Sections:
    environment = _environment(run)
    groups = choose_frames(evaluation)
    gallery: dict[str, Iterator[Picture]] = {name: draw_frames(frames, source) for name, frames in groups.items()}
    if not gallery:
        records = _some_videos(source.index, evaluation.split)
        names = source.index.class_names
        gallery = {"": draw_maps(records, source.truth, source.localizers, levels, class_names=names, size=source.size)}
    config = run / "config.yaml"
    details = {
        "Settings (config.yaml)": config.read_text(encoding="utf-8") if config.is_file() else "",
        "Environment": as_json(environment) if environment else "",
    }
    return Sections(
        thresholds=threshold_charts(evaluation),
        overlaps=overlap_chart(evaluation),
        sizes=size_chart(evaluation),
        trajectories=trajectory_charts(evaluation),
        training=training_charts(run),
        gallery=gallery,
        published=published_for(Path(str(environment.get("videos", ""))).name, evaluation.class_names),
        details={name: text for name, text in details.items() if text},
        tag_choice=_tag_choice(run, source),
        checks=_checks(source, levels),
    )


def _tag_choice(run: Path, source: PictureSource) -> dict[str, object] | None:
    path = run / "evaluation" / "thresholds.json"
    reasons = read_tag_reasons(path) if path.is_file() else None
    if reasons is None:
        return None
    thresholds, chosen_on = read_thresholds(path)
    return tag_choice_section(reasons, method=list(source.localizers)[-1], thresholds=thresholds, chosen_on=chosen_on)


def _checks(source: PictureSource, levels: Mapping[str, float]) -> dict[str, object] | None:
    """Check the boxes of the last localizer, the one that ``tcam predict`` uses."""
    method = list(source.localizers)[-1]
    if method not in levels:
        return None
    checks = check_videos(method, source.localizers[method], source.index, threshold=levels[method], size=source.size)
    return check_sections(checks)


def draw_frames(frames: Sequence[ChosenFrame], source: PictureSource) -> Iterator[Picture]:
    """Draw frames of an evaluation: the frame with its true boxes, then the map and the box of each localizer.

    A video that cannot be read, or is not in the index, is left out.
    """
    records = {record.video_id: record for record in source.index.records}
    boxes = {(item.video_id, item.frame_index): item.boxes for item in source.truth}
    for chosen in frames:
        record = records.get(chosen.video)
        if record is None:
            continue
        found = {name: _row_box(chosen.rows[name]) for name in source.localizers if name in chosen.rows}
        notes = {name: f"{name}, IoU {chosen.rows[name]['iou']:.2f}" for name in found}
        try:
            maps = _Frame.read(record, chosen.frame, source.size, boxes.get((chosen.video, chosen.frame), ()))
        except VideoError:
            continue
        panels = [maps.panel(source.index.class_names[record.label])]
        for name, box in found.items():
            panels.append(maps.panel(notes[name], maps.map_of(source.localizers[name]), box))
        yield Picture(f"{chosen.video}, frame {chosen.frame}", tuple(panels))


def draw_maps(
    records: Sequence[VideoRecord],
    truth: Sequence[FrameTruth],
    localizers: Mapping[str, NetworkLocalizer],
    thresholds: Mapping[str, float],
    *,
    class_names: Sequence[str],
    size: Size,
) -> Iterator[Picture]:
    """Draw one frame of each video: the frame with its true box, then the map and the box of each localizer.

    Args:
        records: the videos; one that cannot be read is left out.
        truth: true boxes. The middle annotated frame of a video is drawn, or its middle frame if none is annotated.
        localizers: by name, in the order of the panels.
        thresholds: the map threshold of each localizer.
        class_names: by label.
        size: network input, (height, width).
    """
    for record in records:
        annotated = [item for item in truth if item.video_id == record.video_id and item.boxes]
        middle = annotated[len(annotated) // 2] if annotated else None
        frame, boxes = (middle.frame_index, middle.boxes) if middle else (record.num_frames // 2, ())
        try:
            maps = _Frame.read(record, frame, size, boxes)
        except VideoError:
            continue  # it is in errors.csv already
        panels = [maps.panel(class_names[record.label])]
        for name, localizer in localizers.items():
            one_map = maps.map_of(localizer)
            box = extract_box(one_map, thresholds[name], FrameGeometry.plain_resize(record.size, size))
            panels.append(maps.panel(name, one_map, box))
        yield Picture(f"{record.video_id}, frame {frame}", tuple(panels))


@dataclass(frozen=True, slots=True)
class _Frame:
    """One frame as network input ``[3, *size]`` and as shown ``[3, H, W]``, with its true boxes."""

    record: VideoRecord
    index: int
    small: Pixels
    shown: Pixels
    truth: tuple[Box, ...]

    @classmethod
    def read(cls, record: VideoRecord, frame: int, size: Size, truth: Sequence[Box]) -> _Frame:
        """Read a frame twice.

        Raises:
            VideoError: it cannot be read.
        """
        return cls(
            record, frame, _read(record, frame, size), _read(record, frame, _shown_size(record.size)), tuple(truth)
        )

    def map_of(self, localizer: NetworkLocalizer) -> NDArray[np.float32]:
        """Return the map ``[H, W]`` of the video's class."""
        if localizer.walk is not None:
            size = (self.small.shape[1], self.small.shape[2])
            found = walked_frames(localizer, self.record, [self.index], batch=MOST_ON_CPU, size=size)
            return np.asarray(next(found).maps[0].cpu())
        return np.asarray(localizer.find(self.small[None], self.record.label).maps[0])

    def panel(
        self, label: str, one_map: NDArray[np.float32] | None = None, box: Box | None = None
    ) -> tuple[str, Pixels]:
        """Draw map, box (of original pixels) and true boxes over the frame."""
        scaled = None if box is None else self._scaled(box)
        truth = [self._scaled(item) for item in self.truth]
        return label, draw_overlay(self.shown, scaled, map=one_map, truth=truth)

    def _scaled(self, box: Box) -> Box:
        scale = self.shown.shape[1] / self.record.size[0]
        return Box(*(value * scale for value in box))


def _row_box(row: pd.Series[Any]) -> Box | None:
    x0, y0, x1, y1 = (float(row[name]) for name in ("x0", "y0", "x1", "y1"))
    return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None  # NaN where nothing was found


def _shown_size(size: Size) -> Size:
    scale = _SHORT_SIDE / min(size)  # small frames grow: lines of one pixel would be lost in the WebP
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _some_videos(index: VideoIndex, split: str) -> list[VideoRecord]:
    chosen = [record for record in index.records if split in (record.split, "all")]
    return chosen[:: max(1, len(chosen) // MOST_PICTURES)][:MOST_PICTURES]


def _environment(run: Path) -> dict[str, Any]:
    path = run / "env.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _read(record: VideoRecord, frame: int, size: Size) -> Pixels:
    with open_original(record, size) as reader:
        return np.asarray(reader.read([frame])[0])
