"""Stage "evaluation": score localizers and baselines against true boxes, each number with its protocol.

The map threshold is chosen on the validation split and stored with the run. The best thresholds on the evaluated set
itself, for all classes and per class, are reported next to it as oracles.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import cast

import numpy as np
import torch
from torch import Tensor

from pipelines.config.schema import EvaluationSettings
from pipelines.evaluation.ddt import DDT, VideoDdt, basis_of
from pipelines.evaluation.method_evaluator import (
    BENCHMARK_THRESHOLDS,
    EvaluatorSettings,
    Findings,
    MethodEvaluator,
    Seen,
)
from pipelines.evaluation.results import Rows
from pipelines.evaluation.sampling import threshold_grid
from pipelines.evaluation.shared_backbone import maps_of_all, share_backbones
from pipelines.models.engine import FrameMaps, frames_per_pass
from pipelines.models.localizer import NetworkLocalizer, PackedLocalizer
from pipelines.models.refinement.walked import walked_frames
from pipelines.parallel.map import ItemFailure, ordered_map
from pipelines.parallel.placement import Placement, model_time_limit_s, split_range
from pipelines.run.console import console, item_bar
from tcam.boxes.boxes import centre_box, full_frame_box
from tcam.errors import DataError
from tcam.metrics.corloc import CorLocEvaluator
from tcam.metrics.rules import visible_boxes
from tcam.types import IGNORE, Box, Components, FrameTruth, Size, ThresholdChoice, VideoIndex, VideoRecord
from tcam.video.data_folder.masks import read_mask
from tcam.video.dataset import stream_original

BASELINES: Mapping[str, Callable[[Size], Box]] = {
    "centre box (50 %)": lambda size: centre_box(size, 0.5),
    "full frame": full_frame_box,
}
"""Boxes that do not depend on the pixels: what a method must beat. ``DDT`` is a further baseline, on request."""


@dataclass(frozen=True, slots=True)
class ScoredSet:
    """The evaluator of every method, by name, after one set of videos, and the videos that could not be read."""

    methods: Mapping[str, MethodEvaluator]
    failures: tuple[tuple[str, str], ...]

    @property
    def evaluators(self) -> dict[str, CorLocEvaluator]:
        """The CorLoc evaluator of every method."""
        return {name: method.corloc for name, method in self.methods.items()}

    def best_thresholds(self) -> dict[str, float]:
        """Return the best threshold on this set (macro CorLoc) of every localizer that finds any box at one."""
        known = {name: item for name, item in self.evaluators.items() if not _is_baseline(item)}
        return {name: item.best_threshold() for name, item in known.items() if item.accuracy().nansum() > 0}


def score_videos(
    localizers: Mapping[str, NetworkLocalizer],
    index: VideoIndex,
    records: Sequence[VideoRecord],
    truth: Sequence[FrameTruth],
    *,
    settings: EvaluationSettings,
    size: Size,
    placement: Placement,
    chosen: Mapping[str, float] | None = None,
    components: Components = "largest",
    memory_limit_mb: float | None = None,
    ddt: NetworkLocalizer | None = None,
) -> ScoredSet:
    """Run localizers over the annotated frames of some videos and score them; each frame is decoded once.

    Memory grows by a small row per frame. A frame whose true boxes all lie outside the picture is not scored. A frame
    that is listed without boxes is known to hold no object, and counts for presence only.

    Args:
        localizers: by name.
        index: the class names.
        records: the videos to score.
        truth: true boxes; those of other videos are ignored.
        settings: settings of the evaluation.
        size: network input, (height, width).
        placement: where the work is done; the results are the same, bit for bit.
        chosen: map threshold by localizer, for all metrics besides CorLoc; None counts CorLoc only.
        components: the rule for boxes and overlap; all but ``largest`` are the WSOL benchmark's.
        memory_limit_mb: memory limit of a worker.
        ddt: also score the baseline ``DDT`` on the features of this localizer; costs one more forward pass per frame.

    Raises:
        DataError: none of the videos has a box.
    """
    by_video = _by_video(truth, {record.video_id: record.size for record in records})
    judged = [record for record in records if record.video_id in by_video]
    if not any(item.boxes for frames in by_video.values() for item in frames.values()):
        raise DataError(
            "expected boxes to compare with (boxes.csv: video,frame,x0,y0,x1,y1), found none for these videos"
        )
    shared = EvaluatorSettings(index.class_names, settings.iou_threshold, components)
    grid = threshold_grid(settings.threshold_step) if components == "largest" else BENCHMARK_THRESHOLDS
    baselines = [*BASELINES, *([] if ddt is None else [DDT])]
    methods = {name: MethodEvaluator(name, shared, [0.0], None if chosen is None else 0.0) for name in baselines}
    for name in localizers:
        methods[name] = MethodEvaluator(name, shared, grid, None if chosen is None else chosen[name])
    parts = [part for record in judged for part in _cut(record, by_video[record.video_id], settings.batch)]
    work = ScoreParts(
        tuple(PackedLocalizer.pack(localizer) for localizer in localizers.values()),
        tuple(methods[name] for name in localizers),
        settings.batch,
        size,
        None if ddt is None else PackedLocalizer.pack(ddt),
    )
    failures = _score_all(parts, work, methods, placement=placement, memory_limit_mb=memory_limit_mb)
    return ScoredSet(methods, tuple(failures.items()))


def _score_all(
    parts: Sequence[ScoredPart],
    work: ScoreParts,
    methods: Mapping[str, MethodEvaluator],
    *,
    placement: Placement,
    memory_limit_mb: float | None,
) -> dict[str, str]:
    """Let workers compare maps with boxes, count their results here in order, and return why videos failed."""
    names = [method.name for method in work.methods]
    device = work.localizers[0].compute.device.type if work.localizers else "cpu"
    failures: dict[str, str] = {}
    with item_bar("evaluation") as progress:
        results = ordered_map(
            work,
            parts,
            placement=placement.settled(device, sum(len(part.truth) for part in parts)),
            time_limit_s=lambda part: model_time_limit_s(part.truth[-1].frame_index + len(part.truth) * len(names)),
            memory_limit_mb=memory_limit_mb,
            holds_model=True,
            progress=progress,
        )
        for part, result in zip(parts, results, strict=True):
            if isinstance(result, ItemFailure):
                failures.setdefault(part.record.video_id, result.reason)
            else:
                _count(part.record, result, methods, names)
    return failures


@dataclass(frozen=True, slots=True)
class ScoredPart:
    """A work item: some annotated frames of a video. ``basis`` are frames of the whole video, for ``DDT``."""

    record: VideoRecord
    truth: tuple[FrameTruth, ...]
    basis: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.record.video_id} {self.truth[0].frame_index}-{self.truth[-1].frame_index}"


Batch = tuple[list[FrameTruth], list[Findings], Tensor | None]
"""One batch of annotated frames: their truth, the findings of each localizer, the boxes of ``DDT``."""


@dataclass(frozen=True, slots=True)
class ScoreParts:
    """A factory for workers: loads the models and returns the function that compares a part with its true boxes."""

    localizers: tuple[PackedLocalizer, ...]
    methods: tuple[MethodEvaluator, ...]
    batch: int
    size: Size
    ddt: PackedLocalizer | None = None

    def __call__(self) -> Callable[[ScoredPart], list[Batch]]:
        """Load the models."""
        loaded = share_backbones([localizer.unpack() for localizer in self.localizers])
        ddt = None if self.ddt is None else self.ddt.unpack()
        return partial(_score_part, localizers=loaded, ddt=ddt, work=self)


def _cut(record: VideoRecord, truth: Mapping[int, FrameTruth], batch: int) -> Iterator[ScoredPart]:
    """Cut the annotated frames of a video into parts of whole batches."""
    frames = sorted(truth)
    for part in split_range(0, len(frames), batch=batch):
        own = tuple(truth[i] for i in frames[part.start : part.stop])
        yield ScoredPart(record, own, basis_of(frames))


def _by_video(truth: Sequence[FrameTruth], sizes: Mapping[str, Size]) -> dict[str, dict[int, FrameTruth]]:
    """Group the truth by video and frame, without frames whose boxes all lie outside the picture."""
    by_video: dict[str, dict[int, FrameTruth]] = {}
    outside = 0
    for item in truth:
        if item.video_id not in sizes:
            continue
        if item.boxes and bool(visible_boxes([item], sizes[item.video_id]).isnan().all()):
            outside += 1
        else:
            by_video.setdefault(item.video_id, {})[item.frame_index] = item
    if outside:
        console.print(f"{outside} annotated frames are not scored: their true boxes lie outside the picture")
    return by_video


def _score_part(
    part: ScoredPart, *, localizers: Sequence[NetworkLocalizer], ddt: NetworkLocalizer | None, work: ScoreParts
) -> list[Batch]:
    truth, size = {item.frame_index: item for item in part.truth}, work.size
    common = None
    if ddt is not None:
        common = VideoDdt.of_video(ddt, part.record, part.basis, batch=work.batch, size=size)
    frames = stream_original(part.record, size=size, only=truth)
    walked = [_walked(localizer, part.record, truth, work) for localizer in localizers]
    batches: list[Batch] = []
    while chunk := list(itertools.islice(frames, work.batch)):
        annotated = [truth[frame.index] for frame in chunk]
        stacked = torch.from_numpy(np.stack([frame.pixels for frame in chunk]))
        masks, labels = _read_masks(annotated, size), torch.full((len(chunk),), part.record.label)
        plain = maps_of_all([one for one in localizers if one.walk is None], stacked, labels)
        found = []
        for ahead, method in zip(walked, work.methods, strict=True):
            parts = [next(plain)] if ahead is None else list(itertools.islice(ahead, len(chunk)))
            found.append(method.measure(annotated, part.record.size, Seen.join(parts, masks)))
        batches.append((annotated, found, None if common is None else common.boxes(stacked)))
    return batches


def _walked(
    localizer: NetworkLocalizer, record: VideoRecord, frames: Collection[int], work: ScoreParts
) -> Iterator[FrameMaps[Tensor]] | None:
    """Return the maps of some frames one by one, if the localizer makes the maps of a video agree; else None."""
    if localizer.walk is None:
        return None
    return walked_frames(localizer, record, frames, batch=frames_per_pass(localizer, work.batch), size=work.size)


def _count(
    record: VideoRecord, batches: Sequence[Batch], methods: Mapping[str, MethodEvaluator], names: Sequence[str]
) -> None:
    for truth, found, common in batches:
        for name, findings in zip(names, found, strict=True):
            methods[name].update(truth, record.size, findings, also=record.also)
        for name, make in BASELINES.items():
            box = torch.tensor(list(make(record.size)), dtype=torch.float64)
            methods[name].update_boxes(truth, record.size, box)
        if common is not None:
            methods[DDT].update_boxes(truth, record.size, common)


def _read_masks(truth: Sequence[FrameTruth], size: Size) -> Tensor | None:
    """Read the frames' masks ``[N, H, W]``, all ``IGNORE`` for a frame without one; None if no frame has one."""
    if not any(item.mask for item in truth):
        return None
    nothing = torch.full(size, IGNORE, dtype=torch.uint8)
    return torch.stack([read_mask(Path(item.mask), size) if item.mask else nothing for item in truth])


def results_table(
    scored: ScoredSet,
    thresholds: Mapping[str, float],
    chosen_on: str = "validation",
    others: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> Rows:
    """Return the CorLoc table: baselines, then the localizers at the given thresholds, at the oracle, per-class oracle.

    Args:
        scored: what ``score_videos`` returned.
        thresholds: map threshold by localizer; a localizer without one has only the oracle rows.
        chosen_on: where the thresholds come from: ``validation``, ``tags`` or ``default``.
        others: thresholds that were chosen in other ways, by the name of the way; they get rows of their own.
    """
    evaluators = scored.evaluators
    choice = cast("ThresholdChoice", chosen_on)
    rows = [(name, item.table("none", 0.0)) for name, item in evaluators.items() if _is_baseline(item)]
    names = [name for name, item in evaluators.items() if not _is_baseline(item)]
    rows += [(name, evaluators[name].table(choice, thresholds[name])) for name in names if name in thresholds]
    for way, chosen in others.items():
        of_way = cast("ThresholdChoice", way)
        rows += [(name, evaluators[name].table(of_way, chosen[name])) for name in names if name in chosen]
    rows += [(name, evaluators[name].table("oracle")) for name in names]
    rows += [(name, evaluators[name].table("oracle per class")) for name in names]
    return rows


def _is_baseline(evaluator: CorLocEvaluator) -> bool:
    """Whether a method has no map threshold to choose."""
    return len(evaluator.thresholds) == 1
