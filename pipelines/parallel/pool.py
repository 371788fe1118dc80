"""The interface between a map and its workers: tasks, their results, and the pool."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The outcome of an item: its result, why it failed, or why its worker died (then it may be repeated)."""

    index: int
    kind: Literal["done", "failed", "died"]
    value: object


@dataclass(frozen=True, slots=True)
class Task:
    """One item on its way to a worker, with its limits (seconds of wall clock, resident bytes)."""

    index: int
    item: object
    time_limit_s: float
    memory_limit: int


class WorkerPool(Protocol):
    """A pool of workers; ``size`` is the number of items they process at a time."""

    size: int

    def room(self, waiting: int) -> int:
        """Return how many of ``waiting`` tasks may be submitted now; a pool may start workers for them."""

    def submit(self, task: Task) -> None:
        """Begin a task."""

    def wait(self) -> list[TaskResult]:
        """Return the results that have arrived, after waiting for a fraction of a second at most."""

    def close(self) -> None:
        """End all workers, busy or not."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: workers share the processors, and the last bits depend on the number of threads.

    (Measured in float32: MobileNetV2 and ResNet-18 maps of 1, 2 and 3 threads differ by up to 8e-6.)
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
