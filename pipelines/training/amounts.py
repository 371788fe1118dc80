"""About how much work each step of a run is, for the time left that is shown."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.config.groups import OptimizerSettings
from pipelines.config.methods import METHODS
from pipelines.evaluation.tag_thresholds import MOST_VIDEOS
from pipelines.models.run import Run
from pipelines.training.stages import training_slots
from tcam.types import Shot
from tcam.video.clips import spread_frames

_LOOKED_AT = 8
"""Frames of a video that thresholds are chosen on, in at most ``MOST_VIDEOS``; the report looks at about as many."""

_BACKWARD, _DECODER, _HEAD, _WALK = 2.0, 1.0, 0.3, 1.0
"""Rough estimates of the work on a frame, where the backbone's forward pass is 1: its backward pass, a U-Net, a step of
the head on kept features, the walk."""


def amounts_of_work(run: Run) -> dict[str, float]:
    """Return the steps of a run in order, by the name of their stage, with their work in passes of the backbone."""
    config, kept = run.config, run.config.keeps_features
    shots = [shot for record in run.index.of_split("train") for shot in record.shots]
    visits = _visits(run, config.classifier, 1)
    frames = _frames(shots, config.classifier.frame_choices)
    amounts = {"classifier": frames + _HEAD * visits if kept else (1 + _BACKWARD) * visits}
    if config.has_localizer:
        length = max(METHODS[config.method].clips(config.localizer).length(shot) for shot in shots)
        visits = _visits(run, config.localizer, length)
        frames = _frames(shots, config.localizer.frame_choices)
        walk = _WALK if config.cam.refine == "joint" else 0.0
        for round_ in range(1, config.localizer.rounds + 1):
            seen = kept and round_ > 1
            amounts[run.cams_stage(round_).folder.name] = (walk + (0 if seen else 1)) * frames
            step = _HEAD if kept else 1 + _DECODER + _BACKWARD
            amounts[run.localizer_stage(round_).folder.name] = step * visits
    maps = 2 if config.has_localizer else 1
    scored = sum(bool(item.boxes) for item in run.truth)
    amounts["evaluation"] = maps * (scored + 2 * _LOOKED_AT * min(MOST_VIDEOS, len(run.index.records)))
    return amounts


def _visits(run: Run, settings: OptimizerSettings, length: int) -> int:
    """Return how often a stage sees a frame."""
    return settings.epochs * len(training_slots(run.index, settings)) * length


def _frames(shots: Iterable[Shot], most: int | None) -> int:
    """Return how many frames there are to choose from."""
    return sum(len(spread_frames(shot, most)) for shot in shots)
