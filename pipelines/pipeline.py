"""The way of the data through one run: prepare -> classifier -> CAM cache -> localizer -> evaluation.

Each stage reads files of the stages before it and leaves a folder; it is skipped where its inputs did not change.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from pipelines.config.schema import RunConfig
from pipelines.data.negatives import read_background
from pipelines.data.stage import prepare_data
from pipelines.evaluation.results import evaluation_of, read_evaluation, save_results
from pipelines.evaluation.sampling import threshold_grid
from pipelines.evaluation.score import ScoredSet, results_table, score_videos
from pipelines.evaluation.tag_thresholds import TagThresholds, choose_by_tags
from pipelines.inference.frames import predict_video
from pipelines.inference.overlay_video import save_overlay
from pipelines.models.device import choose_compute
from pipelines.models.localizer import NetworkLocalizer, build_network, check_fit
from pipelines.models.run import REFINED, Run, load_localizers, main_localizer
from pipelines.models.thresholds import save_thresholds
from pipelines.parallel.placement import AUTO, Placement
from pipelines.report.run import PictureSource, write_run_report
from pipelines.run.console import console
from pipelines.run.lock import locked
from pipelines.run.log import RunLog
from pipelines.run.plan import RunPlan
from pipelines.run.signals import advise
from pipelines.run.stage import run_stage, run_step
from pipelines.training.amounts import amounts_of_work
from pipelines.training.classifier_steps import check_baseline, check_one_tag
from pipelines.training.frozen_features import FrozenFeatures
from pipelines.training.run_stage import TrainStage, make_cams, train_here
from pipelines.training.validation import Validator
from tcam.errors import DataError, VideoError
from tcam.files import sweep_leftovers
from tcam.metrics.corloc import CorLocResult
from tcam.model.backbone import load_backbone_weights
from tcam.supervision.joint_walk import JointWalk
from tcam.types import Components
from tcam.video.dataset import stream_original

SAMPLE_FRAMES = 250
"""Length of the overlay video beside the report."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run: its folder, the rows of its evaluation, and how many videos were left out."""

    folder: Path
    rows: list[tuple[str, CorLocResult]]
    failures: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """The map threshold of each localizer, and where it comes from.

    Attributes:
        thresholds: by localizer.
        chosen_on: ``validation``, ``tags`` or ``default``.
        others: the thresholds that boxes or tags would have chosen instead, by ``validation`` or ``tags``.
        reasons: what the choice by tags rests on.
    """

    thresholds: Mapping[str, float]
    chosen_on: str
    others: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reasons: TagThresholds | None = None


def train_run(
    videos: Path, config: RunConfig, folder: Path, *, cache_dir: Path, train_stage: TrainStage = train_here
) -> RunResult:
    """Take tagged videos to a trained run and its tables; goes on where an earlier call in this folder stopped.

    Args:
        videos: the data folder.
        config: all settings.
        folder: of the run.
        cache_dir: where frame caches live.
        train_stage: what trains the two stages.

    Raises:
        TcamError: another process works in this folder, or data, weights or settings do not allow it; what was
            finished stays.
        Interrupted: by a signal; the same call goes on.
    """
    with locked(folder):
        sweep_leftovers(folder)
        advise(f"'tcam train --resume {folder}' goes on from the last step")
        return _train_stages(videos, config, folder, cache_dir, train_stage)


def _train_stages(videos: Path, config: RunConfig, folder: Path, cache_dir: Path, train_stage: TrainStage) -> RunResult:
    compute = choose_compute(config.device, config.precision)
    prepared = prepare_data(videos, config, folder / "index", cache_dir=cache_dir)
    background = read_background(folder / "index", config)
    run = Run(folder, config, compute, prepared.index, prepared.truth, background)
    run.negatives()  # refused, where there are none and the method needs some, before anything is trained
    check_one_tag(config, run.index)
    with RunLog(folder) as log:
        features = FrozenFeatures.of_run(run)
        settings, truth = config.evaluation, run.truth if config.evaluation.selection == "auto" else ()
        validator = Validator(run.index, truth, settings=settings, size=run.input_size, features=features)
        with RunPlan(amounts_of_work(run)):
            run_stage(run.classifier_stage(), lambda: train_stage(run, "classifier", validator, log))
            for round_ in range(1, config.localizer.rounds + 1) if config.has_localizer else ():
                cams, localizer = run.cams_stage(round_), run.localizer_stage(round_)
                run_stage(cams, partial(make_cams, run, round_=round_, features=features))
                run_stage(localizer, partial(train_stage, run, localizer.folder.name, validator, log))
            rows = run_step("evaluation", partial(evaluate_and_report, run, features))
    return RunResult(folder, rows, len(prepared.failures))


def check_settings(config: RunConfig) -> None:
    """Find out before anything is written whether device, network and weights fit together.

    Raises:
        TcamError: they do not.
    """
    choose_compute(config.device, config.precision)
    network = build_network(config.model, 1, decoder=config.has_localizer, seed=config.seed)
    load_backbone_weights(network.backbone, config.model.weights, allow_missing=config.model.allow_missing)
    check_baseline(config.classifier, network)
    check_fit(config, network)


def evaluate_and_report(run: Run, features: FrozenFeatures | None = None) -> list[tuple[str, CorLocResult]]:
    """Choose thresholds on the validation split, score the test split, write tables and report."""
    localizers = load_localizers(run)
    chosen = choose_thresholds(run, localizers, features=features)
    thresholds, chosen_on = chosen.thresholds, chosen.chosen_on
    settings = run.config.evaluation
    validator = Validator(run.index, run.truth, settings=settings, size=run.input_size, features=features)
    presence = {name: validator.presence(localizer) for name, localizer in localizers.items()}
    target = run.folder / "evaluation" / "thresholds.json"
    why = None if chosen.reasons is None else asdict(chosen.reasons)
    save_thresholds(target, thresholds, chosen_on=chosen_on, presence=presence, others=chosen.others, tags=why)
    for stored in REFINED.values():
        (run.folder / stored).unlink(missing_ok=True)  # chosen for the maps of earlier weights
    if chosen.reasons is not None:
        joint = {f"{name} + joint": found.threshold for name, found in chosen.reasons.walked.items()}
        save_thresholds(run.folder / REFINED["joint"], joint, chosen_on="tags", presence={})
    annotated = {item.video_id for item in run.truth if item.boxes}
    test = [record for record in run.index.of_split("test") if record.video_id in annotated]
    rows: list[tuple[str, CorLocResult]] = []
    if test:
        scored = score_split(run, localizers, "test", chosen=thresholds)
        rows = [*results_table(scored, thresholds, chosen_on, chosen.others)]
        folder = run.folder / "evaluation"
        save_results(folder, rows, scored.methods, thresholds, split="test", chosen_on=chosen_on)
    overlay = write_sample_overlay(run, localizers[main_localizer(run)], thresholds[main_localizer(run)])
    evaluation = read_evaluation(run.folder / "evaluation") if test else evaluation_of([])
    write_run_report(run.folder, evaluation, picture_source(run, localizers), thresholds=thresholds, video=overlay)
    return rows


def picture_source(run: Run, localizers: Mapping[str, NetworkLocalizer]) -> PictureSource:
    """Describe what the frames of a report are drawn from."""
    return PictureSource(localizers, run.index, run.truth, run.input_size)


def write_sample_overlay(run: Run, localizer: NetworkLocalizer, threshold: float) -> Path | None:
    """Draw map, predicted and true box over one test video (a validation or training one where there is none)."""
    order = [*run.index.of_split("test"), *run.index.of_split("val"), *run.index.of_split("train")]
    record, target = order[0], run.folder / "report" / "overlay.mp4"
    truth = {item.frame_index: item.boxes for item in run.truth if item.video_id == record.video_id}
    frames = predict_video(
        localizer,
        record.video_id,
        stream_original(record, size=run.input_size, keep_original=True),
        threshold=threshold,
        class_names=run.index.class_names,
        label=record.label,
    )
    try:
        for _ in save_overlay(itertools.islice(frames, SAMPLE_FRAMES), target, run.index.class_names, truth=truth):
            pass
    except VideoError:
        return None  # the report goes without; evaluation has listed the video
    return target


def choose_thresholds(
    run: Run,
    localizers: Mapping[str, NetworkLocalizer],
    *,
    components: Components = "largest",
    placement: Placement = AUTO,
    features: FrozenFeatures | None = None,
) -> Chosen:
    """Choose each localizer's map threshold, as ``evaluation.selection`` says; ``features`` are those of training."""
    settings = run.config.evaluation
    if settings.selection == "default":
        return Chosen(dict.fromkeys(localizers, settings.default_threshold), "default")
    walk, grid = JointWalk(**run.config.cam.walk.model_dump()), threshold_grid(settings.threshold_step)
    features = features or FrozenFeatures.of_run(run)
    reasons = choose_by_tags(localizers, run.index, walk=walk, size=run.input_size, grid=grid, look=features)
    console.print(f"map thresholds: tags of {reasons.videos} videos", style="dim")
    if reasons.guesses:
        names = ", ".join(reasons.guesses)
        console.print(
            f"warning: the threshold that tags choose for {names} is a guess: boxes agree no more in the same frame "
            "than across videos, so the maps hardly tell the object"
        )
    ways: dict[str, Mapping[str, float]] = {"tags": reasons.thresholds}
    annotated = {item.video_id for item in run.truth if item.boxes}
    if any(record.video_id in annotated for record in run.index.of_split("val")):
        scored = score_split(run, localizers, "val", components=components, placement=placement)
        best = scored.best_thresholds()
        ways["validation"] = {**reasons.thresholds, **best}
        if missed := ", ".join(name for name in localizers if name not in best):
            console.print(f"{missed}: no map threshold finds a validation box, so tags choose it")
    chosen_on = "validation" if settings.selection == "auto" and "validation" in ways else "tags"
    return Chosen(ways.pop(chosen_on), chosen_on, ways, reasons)


def score_split(
    run: Run,
    localizers: Mapping[str, NetworkLocalizer],
    split: str,
    *,
    chosen: Mapping[str, float] | None = None,
    components: Components = "largest",
    placement: Placement = AUTO,
    ddt: NetworkLocalizer | None = None,
) -> ScoredSet:
    """Score localizers and baselines on the annotated frames of a split, or of all (``all``); see ``score_videos``.

    Raises:
        DataError: no video is in the split, or none of them has a box.
    """
    records = [record for record in run.index.records if split in (record.split, "all")]
    if not records:
        raise DataError(f"the {split} split has no videos: choose another with --split, or other videos with --videos")
    return score_videos(
        localizers,
        run.index,
        records,
        run.truth,
        settings=run.config.evaluation,
        size=run.input_size,
        placement=placement,
        memory_limit_mb=run.config.data.memory_limit_mb,
        chosen=chosen,
        components=components,
        ddt=ddt,
    )
