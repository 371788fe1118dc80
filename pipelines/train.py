"""Stages "classifier" and "localizer": two plain training loops.

Randomness of an epoch comes from (seed, epoch) alone, so a run resumed at an epoch's start goes on as if never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from colocam.sampling import SequenceSampler
from pipelines.cams import CamCache
from pipelines.checkpoint import load_state, save_state, save_weights
from pipelines.config import OptimizerSettings, RunConfig
from pipelines.device import Compute
from pipelines.localizer import Localizer
from pipelines.methods import clip_sampler, localizer_objective, seed_sampler
from pipelines.runlog import RunLog, console, progress_bar
from pipelines.selection import ValidationScores, Validator
from tcam.errors import TrainingError
from tcam.model.backbone import late_parameters
from tcam.model.network import FrameCamNet
from tcam.types import ClipBatch, LossTerms, Shot, VideoIndex, VideoRecord
from tcam.video.clips import FrameSampler
from tcam.video.dataset import Clip, ClipDataset, EpochBatches, collate_clips


@dataclass(frozen=True, slots=True)
class TrainingContext:
    """What both loops need besides the network."""

    config: RunConfig
    index: VideoIndex
    validator: Validator
    log: RunLog
    compute: Compute
    folder: Path
    fingerprint: str


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
    loader, batches = _loader(context, settings, choose_frames=FrameSampler(settings.frame_limit), read_cams=None)

    def losses(batch: ClipBatch, _: torch.Generator) -> LossTerms:
        with context.compute.autocast():
            output = network(batch.frames.flatten(0, 1))
        labels = batch.label.repeat_interleave(batch.frames.shape[1])
        return LossTerms({"classes": functional.cross_entropy(output.class_logits, labels)}, {"classes": 1.0})

    localizer = Localizer(network, context.config.cam.method, context.compute)
    trainer = _Trainer(context, "classifier", settings, localizer, groups)
    trainer.run(loader, batches, losses, keep=("best_localization", "best_classification"))


def train_localizer(network: FrameCamNet, cams: CamCache, context: TrainingContext) -> None:
    """Train the decoder of a network, its classifier frozen, from pseudo-labels; leaves best_localization and last.

    The class scores do not change, so there is no best_classification here.
    """
    settings = context.config.localizer
    network.freeze_classifier()
    make_labels, objective = seed_sampler(settings), localizer_objective(context.config)
    loader, batches = _loader(context, settings, choose_frames=clip_sampler(context.config), read_cams=cams)

    def losses(batch: ClipBatch, generator: torch.Generator) -> LossTerms:
        with context.compute.autocast():
            output = network(batch.frames.flatten(0, 1))
        if batch.cams is None or output.map_logits is None:
            raise ValueError("the localizer stage needs cached CAMs and a network with a decoder")
        labels = make_labels(batch.cams.flatten(0, 1), generator)
        barrier_t = min(settings.size.initial_t * settings.size.growth**batches.epoch, settings.size.max_t)
        map_logits = output.map_logits.unflatten(0, batch.frames.shape[:2])
        return objective(map_logits, batch.frames, labels, barrier_t=barrier_t)

    localizer = Localizer(network, "decoder", context.compute)
    groups = [{"params": list(network.trainable_parameters()), "lr": settings.lr}]
    trainer = _Trainer(context, "localizer", settings, localizer, groups)
    trainer.run(loader, batches, losses, keep=("best_localization",))


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


class _Trainer:
    """The part both loops share: steps, schedule, validation, checkpoints."""

    def __init__(
        self,
        context: TrainingContext,
        stage: str,
        settings: OptimizerSettings,
        localizer: Localizer,
        groups: list[dict[str, object]],
    ) -> None:
        self.context, self.stage, self.settings, self.localizer = context, stage, settings, localizer
        self.optimizer = torch.optim.SGD(
            groups, momentum=settings.momentum, nesterov=settings.momentum > 0, weight_decay=settings.weight_decay
        )
        self.base_lr = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.scaler = context.compute.grad_scaler()
        self.best: dict[str, float] = {}
        self.next_epoch = 0

    def run(
        self,
        loader: DataLoader[Clip],
        batches: EpochBatches,
        losses: Callable[[ClipBatch, torch.Generator], LossTerms],
        *,
        keep: Sequence[str],
    ) -> None:
        """Train from the last saved epoch to the end."""
        self._restore()
        with progress_bar("terms") as bar:
            task = bar.add_task(self.stage, total=self.settings.epochs * len(loader), terms="")
            bar.advance(task, self.next_epoch * len(loader))
            for epoch in range(self.next_epoch, self.settings.epochs):
                batches.epoch = epoch
                means = self._epoch(loader, losses, lambda text: bar.update(task, advance=1, terms=text))
                scores = self.context.validator(self.localizer)
                self._finish_epoch(epoch, means, scores, keep)

    def _epoch(
        self,
        loader: Iterable[ClipBatch],
        losses: Callable[[ClipBatch, torch.Generator], LossTerms],
        show: Callable[[str], None],
    ) -> dict[str, float]:
        epoch, device = self.next_epoch, self.context.compute.device
        torch.manual_seed(self.context.config.seed * 1_000_003 + epoch)
        generator = torch.Generator(device).manual_seed(self.context.config.seed * 1_000_003 + epoch)
        for group, lr in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = max(lr * self.settings.lr_gamma ** (epoch // self.settings.lr_step), 1e-7)
        self.localizer.network.train()
        sums: dict[str, float] = {}
        steps = 0
        for batch in loader:
            terms = losses(batch.to(device), generator)
            values = {name: (terms.weights[name] * term).detach() for name, term in terms.terms.items()}
            numbers = self._step(terms, values)
            steps += 1
            sums = {name: sums.get(name, 0.0) + number for name, number in numbers.items()}
            show("  ".join(f"{name} {total / steps:.4g}" for name, total in sums.items()))
        return {name: total / steps for name, total in sums.items()}

    def _step(self, terms: LossTerms, values: dict[str, Tensor]) -> dict[str, float]:
        numbers = dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))  # one look at the device
        bad = [name for name, number in numbers.items() if not math.isfinite(number)]
        if bad:
            found = ", ".join(f"{name} = {number:g}" for name, number in numbers.items())
            raise TrainingError(
                f"{self.stage} stopped in epoch {self.next_epoch + 1}: loss term '{bad[0]}' is not finite ({found}); "
                f"try a lower {self.stage}.lr, or precision=fp32"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(terms.total).backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return numbers

    def _finish_epoch(self, epoch: int, means: dict[str, float], scores: ValidationScores, keep: Sequence[str]) -> None:
        known = {"val_corloc": scores.corloc, "val_accuracy": scores.accuracy}
        row = {**means, **{name: value for name, value in known.items() if value is not None}}
        self.context.log.write(self.stage, epoch + 1, row)
        text = "  ".join(f"{name} {value:.4g}" for name, value in row.items())
        console.print(f"{self.stage} {epoch + 1}/{self.settings.epochs}  {text}")
        criteria = {"best_localization": scores.corloc, "best_classification": scores.accuracy}
        for name in keep:
            measured = criteria[name]
            score = float(epoch) if measured is None else measured  # nothing to judge by: the newest
            if score > self.best.get(name, -math.inf):
                self.best[name] = score
                self._save(f"{name}.safetensors", epoch, row)
        if epoch + 1 == self.settings.epochs:
            self._save("last.safetensors", epoch, row)
        self.next_epoch = epoch + 1
        self._save_state()

    def _save(self, name: str, epoch: int, row: dict[str, float]) -> None:
        facts = {
            "stage": self.stage,
            "epoch": epoch + 1,
            "classes": list(self.context.index.class_names),
            "metrics": row,
        }
        save_weights(self.localizer.network, self.context.folder / name, facts)

    def _save_state(self) -> None:
        state = {
            "fingerprint": self.context.fingerprint,
            "network": self.localizer.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best": self.best,
            "next_epoch": self.next_epoch,
        }
        save_state(self.context.folder / "resume.pt", state)

    def _restore(self) -> None:
        state = load_state(self.context.folder / "resume.pt", self.context.fingerprint)
        if state is None:
            return
        network: nn.Module = self.localizer.network
        network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.best, self.next_epoch = state["best"], state["next_epoch"]
        console.print(f"{self.stage}: resumed after epoch {self.next_epoch}")


def _loader(
    context: TrainingContext,
    settings: OptimizerSettings,
    *,
    choose_frames: FrameSampler | SequenceSampler,
    read_cams: CamCache | None,
) -> tuple[DataLoader[Clip], EpochBatches]:
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
    loader: DataLoader[Clip] = DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate_clips,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        multiprocessing_context="spawn" if settings.workers else None,
        pin_memory=context.compute.device.type == "cuda",
        generator=torch.Generator(),
    )
    return loader, batches
