"""The way of the data through one run: prepare -> classifier -> CAM cache -> localizer -> evaluation.

Each stage reads files of the stages before it and leaves a folder; it is skipped where its inputs did not change.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pipelines.baselines import check_baseline, settings_that_count
from pipelines.cams import CamCache, write_cams
from pipelines.checkpoint import load_weights
from pipelines.config import RunConfig, load_config
from pipelines.device import Compute, choose_compute
from pipelines.evaluate import ScoredSet, results_table, save_thresholds, score_videos
from pipelines.files import hash_file, hash_json, without
from pipelines.localizer import Localizer, build_network, check_fit
from pipelines.lock import locked
from pipelines.negatives import find_negatives, negatives_fingerprint, read_background
from pipelines.overlay_video import save_overlay
from pipelines.predict import predict_video
from pipelines.prepare_run import prepare_data
from pipelines.report_results import evaluation_of, read_evaluation
from pipelines.report_run import PictureSource, write_run_report
from pipelines.results import save_results
from pipelines.runlog import RunLog, Stage, console, run_stage
from pipelines.selection import Validator
from pipelines.signals import advise
from pipelines.spread import AS_FITS, Spread
from pipelines.team import ALONE, Team, team_compute
from pipelines.train import train_classifier, train_localizer
from pipelines.trainer import Slot, TrainingContext
from tcam.errors import VideoError
from tcam.files import sweep_leftovers
from tcam.localization.corloc import CorLocResult
from tcam.model.backbone import load_backbone_weights
from tcam.types import Components, FrameTruth, Size, VideoIndex, VideoRecord
from tcam.video.dataset import stream_original
from tcam.video.index import read_index, read_truth

SAMPLE_FRAMES = 250
"""Length of the overlay video beside the report."""

FORMATS = {"classifier": 1, "cams": 1, "localizer": 2}
"""Part of each stage's fingerprint: raise a stage's number when the same settings would give another result."""


REFINED: Final = Path("evaluation-crf/thresholds.json")
"""In a run folder: map thresholds that ``tcam evaluate --refine crf`` chose for refined maps."""

ADDED = {"pooling": "wgap", "background": False}
"""Settings of the model that came later, and what went without saying: left out, so that older stages still count."""

ADDED_TO_LOCALIZER = {
    "seeds": {"erosion": 1},
    "negatives": {"weight": 0.0},
    "uncertainty": {"foreground": 0.0, "background": 0.0},
}
"""The same for settings of the localizer, group by group."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a finished run has to say."""

    rows: list[tuple[str, CorLocResult]]
    failures: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder, its settings and its data; the methods below are its stages, in order."""

    folder: Path
    config: RunConfig
    compute: Compute
    index: VideoIndex
    truth: tuple[FrameTruth, ...]
    background: tuple[VideoRecord, ...] = ()

    @property
    def input_size(self) -> Size:
        """Network input, (height, width)."""
        return self.config.input.crop, self.config.input.crop

    def stage(self, name: str, depends_on: Mapping[str, Any]) -> Stage:
        """Name a stage's folder and hash all it depends on."""
        return Stage(self.folder / name, hash_json({"format": FORMATS[name], "stage": name, **depends_on}))

    def classifier_stage(self) -> Stage:
        """The stage that trains the frame classifier."""
        config = self.config.model_dump(mode="json")
        weights = self.config.model.weights
        return self.stage(
            "classifier",
            {
                **{key: config[key] for key in ("seed", "precision", "input", "evaluation")},
                "classifier": settings_that_count(_that_matters(config["classifier"])),
                "model": {
                    key: value
                    for key, value in config["model"].items()
                    if key not in ("decoder", "decoder_channels", "weights") and (key, value) not in ADDED.items()
                },
                "weights": hash_file(Path(weights)) if Path(weights).is_file() else weights,
                "cam": config["cam"]["method"],
                "data": _data_fingerprint(self.index, self.truth),
            },
        )

    def cams_stage(self) -> Stage:
        """The stage that caches the training frames' CAMs."""
        return self.stage("cams", {"classifier": self.classifier_stage().fingerprint, "cam": self.config.cam.method})

    def localizer_stage(self) -> Stage:
        """The stage that trains the decoder."""
        config = self.config.model_dump(mode="json")
        decoder, negatives = self.config.model.decoder, self.negatives()
        return self.stage(
            "localizer",
            {
                "cams": self.cams_stage().fingerprint,
                "method": config["method"],
                "localizer": _that_matters(without(config["localizer"], ADDED_TO_LOCALIZER)),
                "decoder": config["model"]["decoder_channels"] if decoder == "unet" else decoder,
                **({"negatives": negatives_fingerprint(negatives)} if negatives else {}),
            },
        )

    def negatives(self) -> tuple[Slot, ...]:
        """List the shots without any object that the method trains on."""
        return find_negatives(self.config, self.index, self.truth, self.background)


TrainStage = Callable[[Run, str, Validator, RunLog], None]
"""Trains the stage of this name into its folder, in this process or in many."""


def train_here(run: Run, name: str, validator: Validator, log: RunLog, team: Team = ALONE) -> None:
    """Train stage "classifier" or "localizer" in this process, together with the others of its team."""
    (_classifier if name == "classifier" else _localizer)(run, validator, log, team)


def train_beside(folder: Path, name: str, team: Team) -> None:
    """Train a stage as one of a team in a run that another process prepared."""
    run = load_run(folder)
    run = replace(run, compute=team_compute(run.config.device, run.config.precision))
    validator = Validator(run.index, run.truth, settings=run.config.evaluation, size=run.input_size)
    with RunLog(folder) as log:
        train_here(run, name, validator, log, team)


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
    with RunLog(folder) as log:
        validator = Validator(run.index, run.truth, settings=config.evaluation, size=run.input_size)
        run_stage(run.classifier_stage(), lambda: train_stage(run, "classifier", validator, log))
        if config.method != "cam":
            run_stage(run.cams_stage(), lambda: make_cams(run))
            run_stage(run.localizer_stage(), lambda: train_stage(run, "localizer", validator, log))
    rows = evaluate_and_report(run)
    return RunResult(rows, len(prepared.failures))


def check_settings(config: RunConfig) -> None:
    """Find out before anything is written whether device, network and weights fit together.

    Raises:
        TcamError: they do not.
    """
    choose_compute(config.device, config.precision)
    network = build_network(config.model, 1, decoder=config.method != "cam", seed=config.seed)
    load_backbone_weights(network.backbone, config.model.weights, allow_missing=config.model.allow_missing)
    check_baseline(config.classifier, network)
    check_fit(config, network)


def load_run(folder: Path, *, device: str = "auto") -> Run:
    """Open a finished run for prediction or evaluation."""
    config = load_config(folder / "config.yaml")
    index = read_index(folder / "index" / "index.json")
    truth = read_truth(folder / "index" / "truth.csv", index)
    background = read_background(folder / "index", config)
    return Run(folder, config, choose_compute(device, config.precision), index, truth, background)


def load_localizers(run: Run) -> dict[str, Localizer]:
    """Load what the run has learnt, by name: its CAM and, for a localizer method, that.

    Raises:
        WeightsError: a checkpoint is missing or damaged.
    """
    config, classes = run.config, len(run.index.class_names)
    loaded: dict[str, Localizer] = {}
    classifier = build_network(config.model, classes, decoder=False, seed=0)
    load_weights(classifier, run.folder / "classifier" / "best_localization.safetensors")
    loaded[config.cam.method] = Localizer(classifier.to(run.compute.device).eval(), config.cam.method, run.compute)
    if config.method != "cam":
        network = build_network(config.model, classes, decoder=True, seed=0)
        load_weights(network, run.folder / "localizer" / "best_localization.safetensors")
        loaded[config.method] = Localizer(network.to(run.compute.device).eval(), "decoder", run.compute)
    return loaded


def main_localizer(run: Run) -> str:
    """Name the localizer that ``tcam predict`` uses."""
    return run.config.cam.method if run.config.method == "cam" else run.config.method


def evaluate_and_report(run: Run) -> list[tuple[str, CorLocResult]]:
    """Choose thresholds on the validation split, score the test split, write tables and report."""
    localizers = load_localizers(run)
    thresholds, chosen_on = choose_thresholds(run, localizers)
    settings = run.config.evaluation
    validator = Validator(run.index, run.truth, settings=settings, size=run.input_size)
    presence = {name: validator.presence(localizer) for name, localizer in localizers.items()}
    target = run.folder / "evaluation" / "thresholds.json"
    save_thresholds(target, thresholds, chosen_on=chosen_on, presence=presence)
    (run.folder / REFINED).unlink(missing_ok=True)  # chosen for the maps of earlier weights
    annotated = {item.video_id for item in run.truth if item.boxes}
    test = [record for record in run.index.of_split("test") if record.video_id in annotated]
    rows: list[tuple[str, CorLocResult]] = []
    if test:
        scored = score_split(run, localizers, "test", chosen=thresholds)
        rows = [*results_table(scored, thresholds, chosen_on)]
        folder = run.folder / "evaluation"
        save_results(folder, rows, scored.judges, thresholds, split="test", chosen_on=chosen_on)
    overlay = write_sample_overlay(run, localizers[main_localizer(run)], thresholds[main_localizer(run)])
    evaluation = read_evaluation(run.folder / "evaluation") if test else evaluation_of([])
    write_run_report(run.folder, evaluation, picture_source(run, localizers), thresholds=thresholds, video=overlay)
    return rows


def picture_source(run: Run, localizers: Mapping[str, Localizer]) -> PictureSource:
    """Say what the frames of a report are drawn from."""
    return PictureSource(localizers, run.index, run.truth, run.input_size)


def write_sample_overlay(run: Run, localizer: Localizer, threshold: float) -> Path | None:
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
    run: Run, localizers: Mapping[str, Localizer], *, components: Components = "largest", spread: Spread = AS_FITS
) -> tuple[dict[str, float], str]:
    """Give each localizer's map threshold and where it comes from: the validation boxes, or else the default."""
    annotated = {item.video_id for item in run.truth if item.boxes}
    if any(record.video_id in annotated for record in run.index.of_split("val")):
        scored = score_split(run, localizers, "val", components=components, spread=spread)
        return scored.best_thresholds(), "validation"
    console.print("no validation boxes: map thresholds are the default", style="dim")
    return dict.fromkeys(localizers, run.config.evaluation.default_threshold), "default"


def score_split(
    run: Run,
    localizers: Mapping[str, Localizer],
    split: str,
    *,
    chosen: Mapping[str, float] | None = None,
    components: Components = "largest",
    spread: Spread = AS_FITS,
    saliency: Localizer | None = None,
) -> ScoredSet:
    """Score localizers and floors on the annotated frames of one split, or of all (``all``); see ``score_videos``."""
    records = [record for record in run.index.records if split in (record.split, "all")]
    return score_videos(
        localizers,
        run.index,
        records,
        run.truth,
        settings=run.config.evaluation,
        size=run.input_size,
        spread=spread,
        memory_limit_mb=run.config.data.memory_limit_mb,
        chosen=chosen,
        components=components,
        saliency=saliency,
    )


def _that_matters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a training without the number of workers: any number gives the same clips."""
    return {**settings, "workers": 0}


def _data_fingerprint(index: VideoIndex, truth: tuple[FrameTruth, ...]) -> str:
    """Hash what training and selection see: tags, frames (cache files are named by content) and validation boxes."""
    records = [
        (r.video_id, r.label, r.num_frames, r.split, Path(r.cache_path).name if r.cache_path else r.path)
        for r in index.records
    ]
    val = {record.video_id for record in index.of_split("val")}
    boxes = [(t.video_id, t.frame_index, [list(box) for box in t.boxes]) for t in truth if t.video_id in val]
    return hash_json([index.class_names, records, boxes])


def _context(run: Run, stage: Stage, validator: Validator, log: RunLog, team: Team) -> TrainingContext:
    return TrainingContext(
        negatives=run.negatives(),
        config=run.config,
        index=run.index,
        validator=validator,
        log=log,
        compute=run.compute,
        folder=stage.folder,
        fingerprint=stage.fingerprint,
        team=team,
    )


def _classifier(run: Run, validator: Validator, log: RunLog, team: Team) -> None:
    config = run.config
    network = build_network(config.model, len(run.index.class_names), decoder=False, seed=config.seed)
    load_backbone_weights(network.backbone, config.model.weights, allow_missing=config.model.allow_missing)
    train_classifier(network.to(run.compute.device), _context(run, run.classifier_stage(), validator, log, team))


def make_cams(run: Run, spread: Spread = AS_FITS) -> None:
    """Make the CAM cache with the classifier of the run; shots that are there are kept.

    Raises:
        WeightsError: the classifier is not trained yet.
        DataError: a training video cannot be read.
    """
    config = run.config
    network = build_network(config.model, len(run.index.class_names), decoder=False, seed=0)
    load_weights(network, run.folder / "classifier" / "best_localization.safetensors")
    localizer = Localizer(network.to(run.compute.device).eval(), config.cam.method, run.compute)
    write_cams(
        run.index,
        localizer,
        run.cams_stage().folder,
        settings=config.cam,
        size=run.input_size,
        spread=spread,
        memory_limit_mb=config.data.memory_limit_mb,
    )


def _localizer(run: Run, validator: Validator, log: RunLog, team: Team) -> None:
    config, classes = run.config, len(run.index.class_names)
    network = build_network(config.model, classes, decoder=True, seed=config.seed)
    classifier = build_network(config.model, classes, decoder=False, seed=0)
    load_weights(classifier, run.folder / "classifier" / "best_classification.safetensors")
    network.backbone.load_state_dict(classifier.backbone.state_dict())
    network.head.load_state_dict(classifier.head.state_dict())
    cams = CamCache.open(run.cams_stage().folder, run.index, config.localizer.temporal)
    train_localizer(network.to(run.compute.device), cams, _context(run, run.localizer_stage(), validator, log, team))
