"""The processes that train together: the rank of this one, its shard of each batch, and their collective operations.

Every process goes through the same batches in the same order and draws the same random numbers. Each decodes and
computes its own shard. All communication uses ``torch.distributed``: gloo between CPUs, nccl between GPUs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipelines.config.schema import RunConfig
from pipelines.models.device import Compute, choose_compute
from pipelines.run.signals import finishing
from tcam.errors import ConfigError, TrainingError
from tcam.types import LossTerms

PATIENCE: Final = timedelta(days=2)
"""How long the others wait while the main process prepares data or validates; they notice its end at once."""

_MOST_BYTES: Final = 4096
_LOOK_EVERY_S: Final = 0.1


class ProcessGroupError(TrainingError):
    """Another process of the group has ended."""


@dataclass(frozen=True, slots=True)
class BatchShard:
    """Clips ``first`` to ``stop`` (half-open, never empty) of a batch of ``total``.

    In a batch smaller than the group, some processes have no clip of their own. They compute the first clip, because
    many operations do not accept an empty tensor, and ``counts`` is False: their results are not counted.
    """

    first: int
    stop: int
    total: int
    counts: bool = True

    def times(self, frames: int) -> BatchShard:
        """Return the same shard counted in frames, with ``frames`` per clip."""
        return BatchShard(self.first * frames, self.stop * frames, self.total * frames, self.counts)


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """``size`` processes that train together; this one is ``rank``. Only rank 0, the main process, writes files."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process validates, writes and reports."""
        return self.rank == 0

    def shard(self, total: int) -> BatchShard:
        """Return this process's part of ``total`` clips; parts differ by one clip at most."""
        first, stop = total * self.rank // self.size, total * (self.rank + 1) // self.size
        return BatchShard(first, stop, total) if first < stop else BatchShard(0, 1, total, counts=False)

    def holding_signals(self) -> AbstractContextManager[None]:
        """Hold back signals within the block: if one ended only this process, the others would wait for it."""
        return finishing() if self.size > 1 else nullcontext()

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the group, in place; its shape is the same in every process.

        Raises:
            ProcessGroupError: another process has ended.
        """
        try:
            dist.all_reduce(tensor)
        except RuntimeError as error:
            raise _lost(self) from error
        return tensor

    def any(self, wish: bool) -> bool:
        """Whether the value is true in any process."""
        return self.size > 1 and bool(self.sum(torch.tensor(float(wish))) > 0)

    def join_losses(self, terms: LossTerms, shard: BatchShard) -> tuple[LossTerms, LossTerms]:
        """Weight the means over this process's shard so that they add up to the means over the whole batch.

        Returns:
            This process's terms, whose sum over the group is the loss; and the whole batch's terms, without gradient.
        """
        values = torch.stack([term.detach().double() for term in terms.terms.values()])
        counts = values.new_tensor([float(terms.counts[name]) * shard.counts for name in terms.terms])
        sums, totals = self.sum(torch.stack([values * counts, counts]))
        shares = (counts / totals.clamp_min(1)).tolist()
        parts = {name: part * term for part, (name, term) in zip(shares, terms.terms.items(), strict=True)}
        whole = dict(zip(terms.terms, sums / totals.clamp_min(1), strict=True))
        return LossTerms(parts, terms.weights), LossTerms(whole, terms.weights)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients of every parameter over the group, in one message."""
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        sums = self.sum(torch.cat([grad.flatten() for grad in grads]))
        for grad, part in zip(grads, torch.split(sums, [grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def broadcast(self, text: str) -> None:
        """Send a short text to all other processes, which ``receive`` it."""
        message = text.encode().ljust(_MOST_BYTES)
        dist.broadcast(torch.frombuffer(bytearray(message), dtype=torch.uint8), src=0)

    def receive(self) -> str:
        """Wait for a text from the main process, without a time limit; signals take effect meanwhile.

        Raises:
            ProcessGroupError: the main process has ended.
        """
        message = torch.zeros(_MOST_BYTES, dtype=torch.uint8)
        try:
            work = dist.broadcast(message, src=0, async_op=True)
            while work is not None and not work.is_completed():
                time.sleep(_LOOK_EVERY_S)
            if work is not None:
                work.wait()
        except RuntimeError as error:
            raise _lost(self) from error
        return bytes(message.tolist()).decode().rstrip()


SINGLE_PROCESS: Final = ProcessGroup()


@contextmanager
def joined_process_group() -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started within the block; without torchrun the group is this process only."""
    if not dist.is_torchelastic_launched() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield SINGLE_PROCESS
        return
    dist.init_process_group(backend_of(torch.cuda.is_available()), timeout=PATIENCE)
    try:
        yield current_process_group()
    finally:
        dist.destroy_process_group()


def current_process_group() -> ProcessGroup:
    """Return the initialised process group; its processes on this machine share the cores."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_size()))
    return ProcessGroup(dist.get_rank(), dist.get_world_size())


def backend_of(gpus: bool) -> str:
    """Return the backend of ``torch.distributed``: nccl or gloo."""
    return "cpu:gloo,cuda:nccl" if gpus else "gloo"


def local_size() -> int:
    """Return the number of processes of the group on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def group_compute(device: str, precision: str) -> Compute:
    """Choose the device of this process of a group: its own GPU, or the CPU.

    Raises:
        ConfigError: another kind of device, or fewer GPUs than processes.
    """
    kind = choose_compute(device, precision).device.type
    if kind != "cuda":
        return choose_compute("cpu", precision)
    check_gpus(local_size(), torch.cuda.device_count())
    own = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    torch.cuda.set_device(own)
    return choose_compute(own, precision)


def check_group_size(config: RunConfig, size: int) -> None:
    """Check, before anything runs, that a batch can be shared among ``size`` processes.

    Raises:
        ConfigError: fewer than one process, more than clips of a batch, or a device that cannot take part.
    """
    if size < 1:
        raise ConfigError(f"--num-workers must be 1 or more, got {size}")
    clips = {"classifier.batch": config.classifier.batch}
    if config.has_localizer:
        clips["localizer.batch"] = config.localizer.batch // config.localizer.sequence.frames
    name, fewest = min(clips.items(), key=lambda item: item[1])
    if size > fewest:
        raise ConfigError(
            f"a batch is shared by all workers: expected at most {fewest} ({name}, in clips), got {size} workers; "
            f"ask for fewer or raise {name}"
        )
    if size > 1 and choose_compute(config.device, config.precision).device.type == "mps":
        raise ConfigError("several workers train on CUDA or the CPU, got mps: add --device cpu")


def check_gpus(wanted: int, found: int) -> None:
    """Check that every process has its own GPU.

    Raises:
        ConfigError: there are fewer GPUs.
    """
    if found < wanted:
        raise ConfigError(f"every worker needs a GPU: expected {wanted}, found {found}; ask for {found} workers")


def _lost(group: ProcessGroup) -> ProcessGroupError:
    return ProcessGroupError(
        f"a worker of the {group.size} that train together ended (killed, or out of memory?); resume the run with "
        "--resume, with any number of workers"
    )
