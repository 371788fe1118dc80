"""Stages "classifier" and "localizer": what each trains, from which clips, with which losses."""

from __future__ import annotations

import signal

import torch
from torch.utils.data import DataLoader

from colocam.sampling import SequenceSampler
from pipelines.baselines import classifier_lesson
from pipelines.cams import CamCache
from pipelines.config import OptimizerSettings
from pipelines.localizer import Localizer
from pipelines.methods import clip_sampler, localizer_objective, seed_sampler
from pipelines.team import Share
from pipelines.trainer import EpochOrder, Trainer, TrainingContext
from tcam.model.backbone import late_parameters
from tcam.model.network import FrameCamNet
from tcam.types import ClipBatch, LossTerms, Shot, VideoIndex, VideoRecord
from tcam.video.clips import FrameSampler
from tcam.video.dataset import Clip, ClipDataset, EpochBatches, collate_clips


def train_classifier(network: FrameCamNet, context: TrainingContext) -> None:
    """Train a frame classifier from tags; leaves best_classification, best_localization and last in the folder."""
    settings = context.config.classifier
    if settings.freeze_batch_norm:
        network.freeze_batch_norm()
    if settings.freeze_backbone:
        network.freeze_backbone()
    late, early = late_parameters(network.backbone)
    fast = [parameter for parameter in (*late, *network.head.parameters()) if parameter.requires_grad]
    slow = [parameter for parameter in early if parameter.requires_grad]
    groups: list[dict[str, object]] = [{"params": fast, "lr": settings.lr * settings.late_lr_ratio}]
    if slow:
        groups.append({"params": slow, "lr": settings.lr})
    loader, order = _loader(context, settings, choose_frames=FrameSampler(settings.frame_limit), read_cams=None)

    lesson = classifier_lesson(settings, network)

    def losses(batch: ClipBatch, share: Share, generator: torch.Generator) -> LossTerms:
        per_clip = batch.frames.shape[1]
        labels = batch.label.repeat_interleave(per_clip)
        with context.compute.autocast():
            return lesson(batch.frames.flatten(0, 1), labels, share.times(per_clip), generator)

    localizer = Localizer(network, context.config.cam.method, context.compute)
    trainer = Trainer(context, "classifier", settings, localizer, groups)
    trainer.run(loader, order, losses, keep=("best_localization", "best_classification"))


def train_localizer(network: FrameCamNet, cams: CamCache, context: TrainingContext) -> None:
    """Train the decoder of a network, its classifier frozen, from pseudo-labels; leaves best_localization and last.

    The class scores do not change, so there is no best_classification here.
    """
    settings = context.config.localizer
    network.freeze_classifier()
    make_labels, objective = seed_sampler(settings), localizer_objective(context.config)
    loader, order = _loader(context, settings, choose_frames=clip_sampler(context.config), read_cams=cams)

    def losses(batch: ClipBatch, share: Share, generator: torch.Generator) -> LossTerms:
        with context.compute.autocast():
            output = network(batch.frames.flatten(0, 1))
        if batch.cams is None or output.map_logits is None:
            raise ValueError("the localizer stage needs cached CAMs and a network with a decoder")
        frames = share.times(batch.frames.shape[1])
        labels = make_labels(batch.cams.flatten(0, 1), generator, first=frames.first, total=frames.total)
        barrier_t = min(settings.size.initial_t * settings.size.growth**order.epoch, settings.size.max_t)
        map_logits = output.map_logits.unflatten(0, batch.frames.shape[:2])
        return objective(map_logits, batch.frames, labels, barrier_t=barrier_t)

    localizer = Localizer(network, "decoder", context.compute)
    groups = [{"params": list(network.trainable_parameters()), "lr": settings.lr}]
    trainer = Trainer(context, "localizer", settings, localizer, groups)
    trainer.run(loader, order, losses, keep=("best_localization",))


def training_slots(index: VideoIndex, settings: OptimizerSettings) -> list[tuple[VideoRecord, Shot]]:
    """List the shots of one epoch, one entry per clip drawn; rare classes are repeated where classes are balanced."""
    by_label: dict[int, list[tuple[VideoRecord, Shot]]] = {}
    for record in index.of_split("train"):
        by_label.setdefault(record.label, []).extend((record, shot) for shot in record.shots)
    most = max(len(shots) for shots in by_label.values())
    slots = []
    for shots in by_label.values():
        count = (most if settings.balance_classes else len(shots)) * settings.frames_per_shot
        slots += [shots[i % len(shots)] for i in range(count)]
    return slots


def _loader(
    context: TrainingContext,
    settings: OptimizerSettings,
    *,
    choose_frames: FrameSampler | SequenceSampler,
    read_cams: CamCache | None,
) -> tuple[DataLoader[Clip], EpochOrder]:
    resize, crop = context.config.input.resize, context.config.input.crop
    slots = training_slots(context.index, settings)
    dataset = ClipDataset(
        slots,
        resize=(resize, resize),
        crop=(crop, crop),
        choose_frames=choose_frames,
        seed=context.config.seed,
        read_cams=read_cams,
    )
    lengths = [choose_frames.length(shot) for _, shot in slots]
    batches = EpochBatches(lengths, frames_per_batch=settings.batch, seed=context.config.seed)
    order = EpochOrder(batches, context.team)
    loader: DataLoader[Clip] = DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=collate_clips,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        multiprocessing_context="spawn" if settings.workers else None,
        pin_memory=context.compute.device.type == "cuda",
        generator=torch.Generator(),
        worker_init_fn=_leave_interrupts_to_the_parent,
    )
    return loader, order


def _leave_interrupts_to_the_parent(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the children too; the parent ends them
