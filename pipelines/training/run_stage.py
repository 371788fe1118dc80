"""Train a stage of a run, in this process or as one of several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipelines.models.checkpoint import load_weights
from pipelines.models.localizer import NetworkLocalizer, build_classifier, build_network
from pipelines.models.run import Run, load_run
from pipelines.parallel.placement import AUTO, Placement
from pipelines.run.log import RunLog
from pipelines.run.stage import Stage
from pipelines.training.cam_cache import CamCache, write_cams
from pipelines.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup, group_compute
from pipelines.training.loop import TrainingContext
from pipelines.training.stages import train_classifier, train_localizer
from pipelines.training.tag_prior import measure_tag_prior
from pipelines.training.validation import Validator
from tcam.model.backbone import load_backbone_weights
from tcam.model.imagenet_head import read_imagenet_head

TrainStage = Callable[[Run, str, Validator, RunLog], None]
"""Trains the stage of this name and writes its folder, with one process or several."""


def train_here(run: Run, name: str, validator: Validator, log: RunLog, group: ProcessGroup = SINGLE_PROCESS) -> None:
    """Train stage "classifier" or "localizer" in this process, together with the others of its group."""
    (_classifier if name == "classifier" else _localizer)(run, validator, log, group)


def train_beside(folder: Path, name: str, group: ProcessGroup) -> None:
    """Train a stage as one process of a group, in a run that another process prepared."""
    run = load_run(folder)
    run = replace(run, compute=group_compute(run.config.device, run.config.precision))
    validator = Validator(run.index, run.truth, settings=run.config.evaluation, size=run.input_size)
    with RunLog(folder) as log:
        train_here(run, name, validator, log, group)


def _context(run: Run, stage: Stage, validator: Validator, log: RunLog, group: ProcessGroup) -> TrainingContext:
    return TrainingContext(
        negatives=run.negatives(),
        config=run.config,
        index=run.index,
        validator=validator,
        log=log,
        compute=run.compute,
        folder=stage.folder,
        fingerprint=stage.fingerprint,
        group=group,
    )


def _classifier(run: Run, validator: Validator, log: RunLog, group: ProcessGroup) -> None:
    config = run.config
    network = build_classifier(config, len(run.index.class_names), seed=config.seed)
    load_backbone_weights(network.backbone, config.model.weights, allow_missing=config.model.allow_missing)
    network = network.to(run.compute.device)
    if network.prior is not None:
        network.prior.set_classifier(*read_imagenet_head(network.backbone, config.model.weights))
        if group.is_main:  # only the main process makes maps and writes weights; the others wait in their first step
            measure_tag_prior(network, run.index, size=run.input_size, batch=config.cam.batch, compute=run.compute)
    train_classifier(network, _context(run, run.classifier_stage(), validator, log, group))


def make_cams(run: Run, placement: Placement = AUTO) -> None:
    """Write the CAM cache with the classifier of the run; shots already there are kept.

    Raises:
        WeightsError: the classifier is not trained yet.
        DataError: a training video cannot be read.
    """
    config = run.config
    network = build_classifier(config, len(run.index.class_names))
    load_weights(network, run.folder / "classifier" / "best_localization.safetensors")
    localizer = NetworkLocalizer(network.to(run.compute.device).eval(), config.cam.method, run.compute)
    write_cams(
        run.index,
        localizer,
        run.cams_stage().folder,
        settings=config.cam,
        size=run.input_size,
        placement=placement,
        memory_limit_mb=config.data.memory_limit_mb,
    )


def _localizer(run: Run, validator: Validator, log: RunLog, group: ProcessGroup) -> None:
    config, classes = run.config, len(run.index.class_names)
    network = build_network(config.model, classes, decoder=True, seed=config.seed)
    classifier = build_classifier(config, classes)
    load_weights(classifier, run.folder / "classifier" / "best_classification.safetensors")
    network.backbone.load_state_dict(classifier.backbone.state_dict())
    network.head.load_state_dict(classifier.head.state_dict())
    cams = CamCache.open(run.cams_stage().folder, run.index, config.localizer.temporal)
    train_localizer(network.to(run.compute.device), cams, _context(run, run.localizer_stage(), validator, log, group))
