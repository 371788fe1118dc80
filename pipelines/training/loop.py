"""The training loop of both stages: steps, schedule, validation, checkpoints, and a state to resume from.

The randomness of an epoch depends only on (seed, epoch), and its state is saved with the rest, so that a killed run
continues from any step as if it had never stopped. Several processes train as one: they split each batch and add up
losses and gradients (``pipelines.training.distributed.process_group``).
"""

from __future__ import annotations

import itertools
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from pipelines.config.groups import OptimizerSettings
from pipelines.config.schema import RunConfig
from pipelines.data.negatives import Slot
from pipelines.models.checkpoint import load_state, save_state, save_weights
from pipelines.models.device import Compute
from pipelines.models.localizer import NetworkLocalizer
from pipelines.run.console import console, progress_bar
from pipelines.run.log import RunLog
from pipelines.run.signals import Interrupted, finishing, interrupted_by, raise_if_interrupted
from pipelines.training.distributed.process_group import SINGLE_PROCESS, BatchShard, ProcessGroup, ProcessGroupError
from pipelines.training.distributed.whole_batch import WholeBatch
from pipelines.training.divergence import Place
from pipelines.training.validation import ValidationScores, Validator
from tcam.errors import TrainingError
from tcam.types import ClipBatch, LossTerms, VideoIndex
from tcam.video.dataset import Clip, EpochBatches

Losses = Callable[[ClipBatch, BatchShard, torch.Generator], LossTerms]
"""Computes the losses of this process's shard of a batch; all randomness on the device comes from the generator."""

Keep = Mapping[str, Literal["corloc", "accuracy"]]
"""The weight files to keep, each from the epoch of the highest validation score of this kind."""

_STATE_FORMAT: Final = 2
"""Format of saved states. Raise it when their content changes: older states are then ignored and stages start again."""

_MAX_SAVING: Final = 0.02
"""Largest share of the training time that saving states may take."""


@dataclass(frozen=True, slots=True)
class TrainingContext:
    """What both stages need besides the network; ``negatives`` are shots without an object, if the method uses any."""

    config: RunConfig
    index: VideoIndex
    validator: Validator
    log: RunLog
    compute: Compute
    folder: Path
    fingerprint: str
    group: ProcessGroup = SINGLE_PROCESS
    negatives: tuple[Slot, ...] = ()


class EpochOrder(Sampler[list[tuple[int, int]]]):
    """The batches of epoch ``epoch`` from step ``first`` on; of each, only the part of this process is decoded."""

    def __init__(self, batches: EpochBatches, group: ProcessGroup = SINGLE_PROCESS) -> None:
        self._batches, self._group = batches, group
        self.epoch = self.first = 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch, shard in zip(self._whole(), self.shards(), strict=True):
            yield batch[shard.first : shard.stop]

    def shards(self) -> Iterator[BatchShard]:
        """Return the shard of this process in each of the batches."""
        return (self._group.shard(len(batch)) for batch in self._whole())

    def _whole(self) -> Iterator[list[tuple[int, int]]]:
        self._batches.epoch = self.epoch
        return itertools.islice(self._batches, self.first, None)


@dataclass(slots=True)
class _Position:
    """The progress of a training: finished epochs, steps and loss sums of the current epoch, the best scores so far."""

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)


def _optimizer(settings: OptimizerSettings, groups: list[dict[str, object]]) -> torch.optim.Optimizer:
    momentum, decay = settings.momentum, settings.weight_decay
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=(momentum, 0.999), weight_decay=decay)
    return torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, weight_decay=decay)


class Trainer:
    """Trains one stage; see ``run``."""

    def __init__(
        self,
        context: TrainingContext,
        stage: str,
        settings: OptimizerSettings,
        localizer: NetworkLocalizer,
        groups: list[dict[str, object]],
    ) -> None:
        self._context, self._stage, self._settings, self._localizer = context, stage, settings, localizer
        self._settings_name = stage.partition("-")[0]  # of localizer-1, the first round: localizer
        self._group = context.group
        self._optimizer = _optimizer(settings, groups)
        self._base_lr = [float(group["lr"]) for group in self._optimizer.param_groups]
        self._scaler = context.compute.grad_scaler()
        self._generator = torch.Generator(context.compute.device)
        self._at = _Position()
        self._fingerprint = f"{context.fingerprint}-{_STATE_FORMAT}"
        self._saved_at, self._saving_s = time.monotonic(), 0.0

    def run(self, loader: DataLoader[Clip], order: EpochOrder, losses: Losses, *, keep: Keep) -> None:
        """Train from the last saved state to the end.

        Raises:
            TrainingError: a loss or the network's output is not finite, or a decoding process or another process of
                the group ended.
            Interrupted: by a signal; the state is saved.
        """
        self._restore()
        try:
            with progress_bar("terms") as bar:
                task = bar.add_task(self._stage, total=self._settings.epochs * len(order), terms="")
                bar.advance(task, self._at.epoch * len(order) + self._at.step)
                while self._at.epoch < self._settings.epochs:
                    with self._group.holding_signals():
                        self._epoch(loader, order, losses, lambda text: bar.update(task, advance=1, terms=text))
                    self._end_epoch(keep)
        except Interrupted:
            self._save_state()
            raise
        except ProcessGroupError:
            time.sleep(0.5)  # it may have been ended by a signal to all processes that is on its way to us
            raise_if_interrupted()
            raise
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            time.sleep(0.5)  # a signal to all processes may have ended a worker first, and be on its way to us
            raise_if_interrupted()
            raise TrainingError(
                f"{self._stage} stopped in epoch {self._at.epoch + 1}: a decoding process ended (out of memory?); "
                f"resume the run, with fewer {self._settings_name}.workers in its config.yaml if that repeats"
            ) from None

    def _epoch(self, loader: DataLoader[Clip], order: EpochOrder, losses: Losses, show: Callable[[str], None]) -> None:
        """Run the remaining steps of the epoch."""
        at = self._at
        order.epoch, order.first = at.epoch, at.step
        if at.step == 0:
            at.sums = {}
            seed = self._context.config.seed * 1_000_003 + at.epoch
            torch.manual_seed(seed)
            self._generator.manual_seed(seed)
        for group, lr in zip(self._optimizer.param_groups, self._base_lr, strict=True):
            group["lr"] = max(lr * self._settings.lr_gamma ** (at.epoch // self._settings.lr_step), 1e-7)
        self._localizer.network.train()
        for batch, shard in zip(loader, order.shards(), strict=False):  # only the loader knows its end
            with finishing():
                here = batch.to(self._context.compute.device)
                numbers = self._step(here.frames.flatten(0, 1), self._losses(losses, here, shard), shard)
                at.step += 1
                at.sums = {name: at.sums.get(name, 0.0) + number for name, number in numbers.items()}
                if at.step == len(order):
                    shown = here.frames if self._context.config.reads_frames else here.frames[:1]  # these are all black
                    self._place().check_network(self._localizer.network, shown.flatten(0, 1), self._group)
            self._save_state_if_due()
            show("  ".join(f"{name} {total / at.step:.4g}" for name, total in at.sums.items()))
            if self._group.any(interrupted_by() is not None):
                raise Interrupted(interrupted_by() or signal.SIGTERM)

    def _losses(self, losses: Losses, batch: ClipBatch, shard: BatchShard) -> LossTerms:
        if self._group.size == 1:
            return losses(batch, shard, self._generator)
        with WholeBatch(self._group, shard.times(batch.frames.shape[1])):
            return losses(batch, shard, self._generator)

    def _step(self, frames: Tensor, terms: LossTerms, shard: BatchShard) -> dict[str, float]:
        own, terms = (terms, terms) if self._group.size == 1 else self._group.join_losses(terms, shard)
        values: dict[str, Tensor] = {name: (terms.weights[name] * term).detach() for name, term in terms.terms.items()}
        numbers = dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))  # one look at the device
        self._place().check_losses(numbers, self._localizer.network, frames)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(own.total).backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
        if self._group.size > 1:
            self._group.add_gradients(self._localizer.network.parameters())
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return numbers

    def _place(self) -> Place:
        at = self._at
        return Place(self._settings_name, at.epoch + 1, at.epoch + at.step > 0, self._context.compute)

    def _end_epoch(self, keep: Keep) -> None:
        """Validate and log the epoch in the main process; the others continue and wait in their next step."""
        if not self._group.is_main:
            self._at = _Position(epoch=self._at.epoch + 1)
            return
        scores = self._context.validator(self._localizer)
        with finishing():
            self._finish_epoch(scores, keep)

    def _finish_epoch(self, scores: ValidationScores, keep: Keep) -> None:
        """Log, keep the best weights and save the state, in this order: what a kill cuts off is repeated alike."""
        at, epoch = self._at, self._at.epoch
        known = {"val_corloc": scores.corloc, "val_accuracy": scores.accuracy}
        row = {name: total / at.step for name, total in at.sums.items()}
        row |= {name: value for name, value in known.items() if value is not None}
        self._context.log.write(self._stage, epoch + 1, row)
        text = "  ".join(f"{name} {value:.4g}" for name, value in row.items())
        console.print(f"{self._stage} {epoch + 1}/{self._settings.epochs}  {text}")
        for name, criterion in keep.items():
            measured = scores.corloc if criterion == "corloc" else scores.accuracy
            score = float(epoch) if measured is None else measured  # nothing to compare by: the newest
            best = at.best.get(name, -math.inf)
            if score > best or score == best == 0:  # nothing is right so far: the newest
                at.best[name] = score
                self._save_weights(f"{name}.safetensors", row)
        if epoch + 1 == self._settings.epochs:
            self._save_weights("last.safetensors", row)
        self._at = _Position(epoch=epoch + 1, best=at.best)
        self._save_state()

    def _save_weights(self, name: str, row: dict[str, float]) -> None:
        classes = list(self._context.index.class_names)
        facts = {"stage": self._stage, "epoch": self._at.epoch + 1, "classes": classes, "metrics": row}
        save_weights(self._localizer.network, self._context.folder / name, facts)

    def _save_state_if_due(self) -> None:
        every = self._context.config.save_every_s
        pause = max(every, self._saving_s / _MAX_SAVING) if every else 0.0
        if time.monotonic() - self._saved_at >= pause:
            self._save_state()

    def _save_state(self) -> None:
        if not self._group.is_main:
            return
        began = time.monotonic()
        save_state(self._context.folder / "resume.pt", self._state())
        self._saved_at = time.monotonic()
        self._saving_s = self._saved_at - began

    def _state(self) -> dict[str, Any]:
        on_gpu = self._context.compute.device.type == "cuda"
        return {
            "fingerprint": self._fingerprint,
            "network": self._localizer.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "position": asdict(self._at),
            "random": torch.get_rng_state(),
            "random_on_gpu": torch.cuda.get_rng_state(self._context.compute.device) if on_gpu else None,
            "generator": self._generator.get_state(),
        }

    def _restore(self) -> None:
        state = load_state(self._context.folder / "resume.pt", self._fingerprint)
        if state is not None:
            self._localizer.network.load_state_dict(state["network"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._scaler.load_state_dict(state["scaler"])
            self._at = _Position(**state["position"])
            torch.set_rng_state(state["random"])
            if state["random_on_gpu"] is not None:
                torch.cuda.set_rng_state(state["random_on_gpu"], self._context.compute.device)
            self._generator.set_state(state["generator"])
            at = self._at
            console.print(f"{self._stage}: goes on after epoch {at.epoch}" + (f", step {at.step}" if at.step else ""))
        if self._group.size > 1:
            self._check_same_start()
        if self._group.is_main:
            self._context.log.rewind(self._stage, self._at.epoch)

    def _check_same_start(self) -> None:
        first = next(self._localizer.network.head.parameters())
        own = torch.tensor([self._at.epoch, self._at.step, *first.detach().flatten()[:8].tolist()]).double()
        if self._group.any(not torch.equal(self._group.sum(own.clone()), self._group.size * own)):
            raise TrainingError(
                f"the workers of {self._stage} do not start from the same state: expected the run folder "
                f"{self._context.folder.parent} on a disk that all of them see"
            )
