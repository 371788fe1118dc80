"""The stages "classifier" and "localizer": what each trains, on which clips, with which losses."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipelines.config.groups import OptimizerSettings
from pipelines.config.methods import METHODS
from pipelines.data.negatives import Slot
from pipelines.evaluation.sampling import spread_out
from pipelines.models.localizer import NetworkLocalizer
from pipelines.parallel.processes import fresh_start
from pipelines.training.cam_cache import CamCache
from pipelines.training.classifier_steps import classifier_step, tag_loss, tags_by_video
from pipelines.training.distributed.process_group import BatchShard
from pipelines.training.frozen_features import mirror_some
from pipelines.training.loop import EpochOrder, Keep, Trainer, TrainingContext
from pipelines.training.parameter_groups import joint_groups, localizer_groups
from tcam.model.cam.methods import CAM_METHODS
from tcam.model.network import FrameCamNet
from tcam.supervision.joint_walk import affinity_features
from tcam.supervision.objective import frame_tags
from tcam.types import IGNORE, ClipBatch, FrameOutput, LossTerms, PixelLabels, VideoIndex
from tcam.video.clips import ClipSampler, FrameSampler
from tcam.video.dataset import Clip, ClipDataset, EpochBatches, collate_clips


def train_classifier(network: FrameCamNet, context: TrainingContext) -> None:
    """Train a frame classifier from tags; writes best_classification, best_localization and last to the folder.

    A video with several tags takes part once for each, and always with all of them. Prior CAMs are the same in every
    epoch: best_localization is then the epoch that classifies best.
    """
    settings = context.config.classifier
    groups = joint_groups(network, settings, lr=settings.lr)
    slots = training_slots(context.index, settings)
    choose_frames = FrameSampler(settings.frame_limit, settings.frame_choices)
    loader, order = _loader(context, settings, slots, choose_frames=choose_frames, read_cams=None)

    step, features = classifier_step(settings, network), context.validator.features
    all_tags = tags_by_video(context.index)

    def losses(batch: ClipBatch, shard: BatchShard, generator: torch.Generator) -> LossTerms:
        per_clip = batch.frames.shape[1]
        tags = batch.label
        if all_tags is not None:
            tags = torch.stack([all_tags[video_id] for video_id in batch.video_id]).to(tags.device)
        tags = tags.repeat_interleave(per_clip, dim=0)
        if features is not None:
            return tag_loss(network.head(features.of_batch(network, batch).last), tags)
        with context.compute.autocast():
            return step(batch.frames.flatten(0, 1), tags, shard.times(per_clip), generator)

    localizer = NetworkLocalizer(network, context.config.cam.method, context.compute)
    trainer = Trainer(context, "classifier", settings, localizer, groups)
    maps_learn = not CAM_METHODS[context.config.cam.method].of_imagenet
    best: Keep = {"best_localization": "corloc" if maps_learn else "accuracy", "best_classification": "accuracy"}
    trainer.run(loader, order, losses, keep=best)


def train_localizer(network: FrameCamNet, cams: CamCache, context: TrainingContext, *, name: str = "localizer") -> None:
    """Train a localizer from pseudo-labels; writes best_localization and last to the folder.

    ``name`` is that of the stage in the log: ``localizer``, or ``localizer-1`` for the first of several rounds.

    ``METHODS`` (``pipelines/config/methods.py``) defines what a method trains, on which clips and with which loss.
    """
    settings, method = context.config.localizer, METHODS[context.config.method]
    groups = localizer_groups(network, context.config)

    def score_masked(frames: Tensor, masks: Tensor) -> Tensor:
        with context.compute.autocast():
            return network.score_masked(frames, masks)

    make_labels = settings.seeds.sampler()
    objective = method.objective(settings, score_masked)
    slots = training_slots(context.index, settings)
    slots += negative_slots(context.negatives, settings, most=len(slots))
    loader, order = _loader(context, settings, slots, choose_frames=method.clips(settings), read_cams=cams)

    def losses(batch: ClipBatch, shard: BatchShard, generator: torch.Generator) -> LossTerms:
        batch, output = _output_of(network, batch, context, generator)
        if batch.cams is None:
            raise ValueError("the localizer stage needs cached CAMs")
        frames, maps = shard.times(batch.frames.shape[1]), batch.cams.flatten(0, 1)
        if settings.seeds.weight:
            labels = make_labels(maps, generator, first=frames.first, total=frames.total)
        else:
            labels = PixelLabels(torch.full_like(maps, IGNORE, dtype=torch.uint8))
        barrier_t = min(settings.size.initial_t * settings.size.growth**order.epoch, settings.size.max_t)
        return objective(output, batch, labels, barrier_t=barrier_t)

    localizer = NetworkLocalizer(network, "decoder", context.compute)
    trainer = Trainer(context, name, settings, localizer, groups)
    trainer.run(loader, order, losses, keep={"best_localization": "corloc"})


def _output_of(
    network: FrameCamNet, batch: ClipBatch, context: TrainingContext, generator: torch.Generator
) -> tuple[ClipBatch, FrameOutput]:
    """Return a localizer's output for the frames of a batch; where features are kept, some clips are mirrored here."""
    features, size = context.validator.features, (batch.frames.shape[3], batch.frames.shape[4])
    with context.compute.autocast():
        if features is None:
            pyramid = network.pyramid(batch.frames.flatten(0, 1))
        else:
            batch, pyramid = mirror_some(batch, features.of_batch(network, batch), generator)
        output = network.output(pyramid, size, frame_tags(batch))
        if context.config.localizer.joint.reads_features:
            output = dataclasses.replace(output, affinity=affinity_features(pyramid.levels, size))
    return batch, output


def training_slots(index: VideoIndex, settings: OptimizerSettings) -> list[Slot]:
    """Return the shots of one epoch, one entry per clip; rare classes are repeated if classes are balanced."""
    by_label: dict[int, list[Slot]] = {}
    for record in index.of_split("train"):
        by_label.setdefault(record.label, []).extend((record, shot) for shot in record.shots)
    most = max(len(shots) for shots in by_label.values())
    slots = []
    for shots in by_label.values():
        count = (most if settings.balance_classes else len(shots)) * settings.frames_per_shot
        slots += [shots[i % len(shots)] for i in range(count)]
    return slots


def negative_slots(negatives: Sequence[Slot], settings: OptimizerSettings, *, most: int) -> list[Slot]:
    """Return the shots without an object of one epoch: as often as other shots, evenly thinned to ``most`` clips."""
    repeated = [slot for slot in negatives for _ in range(settings.frames_per_shot)]
    return [repeated[i] for i in spread_out(len(repeated), most)]


def _loader(
    context: TrainingContext,
    settings: OptimizerSettings,
    slots: Sequence[Slot],
    *,
    choose_frames: ClipSampler,
    read_cams: CamCache | None,
) -> tuple[DataLoader[Clip], EpochOrder]:
    resize, crop = context.config.input.resize, context.config.input.crop
    dataset = ClipDataset(
        slots,
        resize=(resize, resize),
        crop=(crop, crop),
        choose_frames=choose_frames,
        seed=context.config.seed,
        read_cams=read_cams,
        flip=context.validator.features is None,
        read_frames=context.config.reads_frames,
    )
    workers = settings.workers if context.config.reads_frames else 0  # nothing to decode
    lengths = [choose_frames.length(shot) for _, shot in slots]
    batches = EpochBatches(lengths, frames_per_batch=settings.batch, seed=context.config.seed)
    order = EpochOrder(batches, context.group)
    loader: DataLoader[Clip] = DataLoader(
        dataset,
        batch_sampler=order,
        collate_fn=collate_clips,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context=fresh_start() if workers else None,
        pin_memory=context.compute.device.type == "cuda",
        generator=torch.Generator(),
        worker_init_fn=_leave_interrupts_to_the_parent,
    )
    return loader, order


def _leave_interrupts_to_the_parent(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the children too; the parent ends them
