"""Train a stage of a run, in this process or as one of several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from pipelines.models.checkpoint import load_weights, save_weights
from pipelines.models.localizer import NetworkLocalizer
from pipelines.models.run import Run, load_run, localizer_folder
from pipelines.parallel.placement import AUTO, Placement
from pipelines.run.log import RunLog
from pipelines.run.stage import Stage
from pipelines.training.cam_cache import CamCache, write_cams
from pipelines.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup, group_compute
from pipelines.training.frozen_features import FrameReader, FrozenFeatures, last_features
from pipelines.training.loop import TrainingContext
from pipelines.training.stages import train_classifier, train_localizer
from pipelines.training.tag_prior import measure_tag_prior
from pipelines.training.validation import Validator
from tcam.model.backbone import load_backbone_weights
from tcam.model.imagenet_head import read_imagenet_head
from tcam.model.level_head import LevelHead
from tcam.model.network import FrameCamNet

TrainStage = Callable[[Run, str, Validator, RunLog], None]
"""Trains the stage of this name and writes its folder, with one process or several."""


def train_here(run: Run, name: str, validator: Validator, log: RunLog, group: ProcessGroup = SINGLE_PROCESS) -> None:
    """Train stage "classifier", or "localizer" of some round, in this process, with the others of its group."""
    if name == "classifier":
        _classifier(run, validator, log, group)
        return
    rounds = run.config.localizer.rounds
    round_ = next(i for i in range(1, rounds + 1) if localizer_folder(i, rounds) == name)
    _localizer(run, round_, validator, log, group)


def train_beside(folder: Path, name: str, group: ProcessGroup) -> None:
    """Train a stage as one process of a group, in a run that another process prepared."""
    run = load_run(folder)
    run = replace(run, compute=group_compute(run.config.device, run.config.precision))
    validator = Validator(
        run.index,
        run.truth if run.config.evaluation.selection == "auto" else (),
        settings=run.config.evaluation,
        size=run.input_size,
        features=FrozenFeatures.of_run(run),
    )
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
    network = run.network(decoder=False, seed=config.seed)
    load_backbone_weights(network.backbone, config.model.weights, allow_missing=config.model.allow_missing)
    network = network.to(run.compute.device)
    if network.prior is not None:
        network.prior.set_classifier(*read_imagenet_head(network.backbone, config.model.weights))
        if group.is_main:  # only the main process makes maps and writes weights; the others wait in their first step
            measure_tag_prior(
                network,
                run.index,
                size=run.input_size,
                batch=config.cam.batch,
                compute=run.compute,
                features=validator.features,
            )
    train_classifier(network, _context(run, run.classifier_stage(), validator, log, group))


def make_cams(
    run: Run, placement: Placement = AUTO, *, round_: int = 1, features: FrozenFeatures | None = None
) -> None:
    """Write the CAM cache of a round: the classifier's CAMs, then the maps of the round before; written shots are kept.

    Raises:
        WeightsError: the classifier is not trained yet.
        DataError: a training video cannot be read.
    """
    config = run.config
    before = run.classifier_stage() if round_ == 1 else run.localizer_stage(round_ - 1)
    network = run.network(decoder=round_ > 1)
    load_weights(network, before.folder / "best_localization.safetensors")
    method = config.cam.method if round_ == 1 else "decoder"
    localizer = NetworkLocalizer(network.to(run.compute.device).eval(), method, run.compute)
    write_cams(
        run.index,
        localizer,
        run.cams_stage(round_).folder,
        settings=config.cam,
        frames_per_shot=config.localizer.frame_choices,
        features=features,
        size=run.input_size,
        placement=placement,
        memory_limit_mb=config.data.memory_limit_mb,
    )


def _localizer(run: Run, round_: int, validator: Validator, log: RunLog, group: ProcessGroup) -> None:
    config = run.config
    network, classifier = run.network(decoder=True, seed=config.seed), run.network(decoder=False)
    load_weights(classifier, run.folder / "classifier" / "best_classification.safetensors")
    network.backbone.load_state_dict(classifier.backbone.state_dict())
    network.head.load_state_dict(classifier.head.state_dict())
    network.to(run.compute.device)
    if isinstance(network.decoder, LevelHead):
        features = validator.features or FrozenFeatures(run.compute, FrameReader.of_run(run))
        network.decoder.fit(last_features(network, features, run.index))
    cams = CamCache.open(
        run.cams_stage(round_).folder, run.index, config.localizer.temporal, config.localizer.frame_choices
    )
    stage = run.localizer_stage(round_)
    train_localizer(network, cams, _context(run, stage, validator, log, group), name=stage.folder.name)
    if config.localizer.average_rounds and round_ > 1 and group.is_main:
        _average(network, stage.folder, run.localizer_stage(round_ - 1).folder)


def _average(network: FrameCamNet, folder: Path, before: Path) -> None:
    """Average the weights of a round's localizer with those of the round before, whose maps taught it.

    All rounds begin with the same weights, so that their mean is as good a network as they are, which costs nothing in
    prediction (model soups, arXiv 2203.05482). Called again after an interruption, it leaves the mean as it is.
    """
    best = folder / "best_localization.safetensors"
    facts = load_weights(network, best)
    if facts.get("averaged"):
        return
    own = {name: value.clone() for name, value in network.state_dict().items()}
    load_weights(network, before / best.name)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            value.copy_((own[name].double() + value.double()) / 2 if value.is_floating_point() else own[name])
    save_weights(network, best, {**facts, "averaged": True})
