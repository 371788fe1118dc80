"""What workers of a map are told and answer, whichever kind of pool they belong to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What came of an item: its result, why it failed, or why its worker died (then it may be tried again)."""

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
    """Those who work; ``size`` is how many items they work on at a time."""

    size: int

    def room(self, waiting: int) -> int:
        """Return how many of ``waiting`` tasks may be submitted now; a pool may start workers for them."""

    def submit(self, task: Task) -> None:
        """Begin a task."""

    def wait(self) -> list[TaskResult]:
        """Wait for news, a fraction of a second at most."""

    def close(self) -> None:
        """End all that was started, whatever it is doing."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: workers share the processors, and two threads give other last bits than one.

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
