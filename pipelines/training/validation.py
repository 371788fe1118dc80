"""Validate the network after each epoch, on a few frames of every validation video."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipelines.config.schema import EvaluationSettings
from pipelines.evaluation.sampling import spread_out, threshold_grid
from pipelines.models.engine import FrameMaps
from pipelines.models.localizer import NetworkLocalizer
from pipelines.training.frozen_features import FrameKey, FrozenFeatures
from tcam.boxes.boxes import scale_boxes
from tcam.boxes.extract import boxes_at_thresholds
from tcam.boxes.over_time import presence_of
from tcam.metrics.corloc import CorLocEvaluator
from tcam.metrics.rules import match_boxes
from tcam.types import ClipBatch, FrameTruth, Size, VideoIndex, VideoRecord
from tcam.video.dataset import FrameDataset, collate_clips


def best_level(present: Sequence[float], absent: Sequence[float]) -> float | None:
    """Return the level that best separates ``present`` from ``absent`` (Youden's J); the lowest of equals.

    J is the share of ``present`` that reaches the level, minus that of ``absent``. Without ``absent`` it is the lowest
    of ``present``; without ``present``, None.
    """
    levels = np.unique(present)
    reached = [1 - np.searchsorted(np.sort(values), levels) / max(len(values), 1) for values in (present, absent)]
    return float(levels[np.argmax(reached[0] - reached[1])]) if len(levels) else None


@dataclass(frozen=True, slots=True)
class ValidationScores:
    """Scores in percent; ``corloc`` is None if no validation frame has a box, ``accuracy`` if there is no video."""

    corloc: float | None
    accuracy: float | None


class Validator:
    """Scores a localizer on fixed validation frames, which are decoded at the first call and kept in memory."""

    def __init__(
        self,
        index: VideoIndex,
        truth: Sequence[FrameTruth],
        *,
        settings: EvaluationSettings,
        size: Size,
        features: FrozenFeatures | None = None,
    ) -> None:
        self.features = features
        self._settings = settings
        self._class_names = index.class_names
        self._truth = {(item.video_id, item.frame_index): item for item in truth if item.boxes}
        empty = {(item.video_id, item.frame_index) for item in truth if not item.boxes}
        self._sizes = {record.video_id: record.size for record in index.records}
        self._tags = {record.video_id: {record.label, *record.also} for record in index.records}
        frames = [
            (record, frame)
            for record in index.of_split("val")
            for frame in _chosen_frames(record, self._truth.keys(), empty, settings.selection_frames)
        ]
        self._loader = DataLoader(
            FrameDataset(frames, size=size, read_frames=features is None),
            batch_size=settings.batch,
            collate_fn=collate_clips,
            generator=torch.Generator(),
        )
        self._batches: list[ClipBatch] | None = None

    def __call__(self, localizer: NetworkLocalizer) -> ValidationScores:
        """Return the macro CorLoc at its best single threshold, and the share of correctly classified frames.

        A frame is correctly classified if its most probable class is a tag of its video.
        """
        localizer.network.eval()
        thresholds = threshold_grid(self._settings.threshold_step)
        evaluator = CorLocEvaluator(self._class_names, thresholds, iou_threshold=self._settings.iou_threshold)
        right, seen, judged = 0, 0, 0
        for batch in self._frames():
            result = self._look(localizer, batch)
            boxes = boxes_at_thresholds(result.maps, thresholds)
            best = result.probabilities.argmax(1).tolist()
            right += sum(label in self._tags[video] for label, video in zip(best, batch.video_id, strict=True))
            seen += len(batch.label)
            for i, video_id in enumerate(batch.video_id):
                truth = self._truth.get((video_id, int(batch.frame_index[i, 0])))
                if truth is not None:
                    size, input_size = self._sizes[video_id], (result.maps.shape[1], result.maps.shape[2])
                    scaled = scale_boxes(boxes[i, None], input_size, size)
                    evaluator.add([truth], match_boxes(scaled, [truth], size).value)
                    judged += 1
        corloc = evaluator.table("oracle").macro if judged else None
        return ValidationScores(corloc, 100.0 * right / seen if seen else None)

    def presence(self, localizer: NetworkLocalizer) -> float | None:
        """Return the level of ``presence_of`` that best separates tags from other classes; None without videos."""
        tagged: list[float] = []
        others: list[float] = []
        for batch in self._frames():
            result = self._look(localizer, batch)
            peaks = result.maps.flatten(1).amax(dim=1).tolist()
            labels = zip(batch.label.tolist(), batch.video_id, strict=True)
            for scores, peak, (label, video) in zip(result.probabilities.tolist(), peaks, labels, strict=True):
                tagged.append(presence_of(scores[label], peak))
                others += [presence_of(score, peak) for i, score in enumerate(scores) if i not in self._tags[video]]
        return best_level(tagged, others)

    def _look(self, localizer: NetworkLocalizer, batch: ClipBatch) -> FrameMaps[Tensor]:
        frames = batch.frames.flatten(0, 1)
        if self.features is None:
            return localizer(frames, batch.label)
        return localizer.map_features(self.features.of_batch(localizer.network, batch), frames, batch.label)

    def _frames(self) -> list[ClipBatch]:
        if self._batches is None:
            self._batches = list(self._loader)
        return self._batches


def _chosen_frames(
    record: VideoRecord, annotated: Collection[FrameKey], empty: Collection[FrameKey], wanted: int
) -> list[int]:
    """Return frames of a video with boxes; if it has none, any that are not known to be empty."""
    frames = range(record.num_frames)
    with_boxes = [frame for frame in frames if (record.video_id, frame) in annotated]
    candidates = with_boxes or [frame for frame in frames if (record.video_id, frame) not in empty]
    return [candidates[i] for i in spread_out(len(candidates), wanted)]
