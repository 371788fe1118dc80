"""Where work on videos is done, and how a long video is cut so that several workers can share it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

RANGE_FRAMES: Final = 512
"""Most frames of a work item: a two-hour video keeps twenty workers busy, and a lost worker costs little."""
COPY_FRAMES: Final = 32
"""The same for clean copies: they hold only key frames, so cuts cost nothing, and workers end at the same time."""
_FEW_FRAMES: Final = 500
"""Below this, child processes cost more to start than they save."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the work is done.

    Attributes:
        workers: number of child processes, or of Ray tasks at a time; 0 works in this process. None means one per CPU
            on Ray; elsewhere ``settled`` decides.
        ray: work on a Ray cluster.
        address: address of a running cluster; None starts one on this machine, which ends with the work.
        actors: number of Ray workers that hold a model; None takes ``workers``, or as many as fit.
        gpus_per_actor: share of a GPU for each actor.
    """

    workers: int | None = None
    ray: bool = False
    address: str | None = None
    actors: int | None = None
    gpus_per_actor: float = 0.0

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers must be 0 or more, got {self.workers}")

    @property
    def here(self) -> bool:
        """Whether this process does the work itself."""
        return not self.ray and not self.workers

    def for_probing(self) -> Placement | None:
        """Return where untrusted files are opened; None leaves it to the settings (child processes)."""
        return self if self.ray or self.workers is not None else None

    def settled(self, device: str, frames: int) -> Placement:
        """Choose the number of workers if it is None: one process per processor for many frames on a CPU, else none."""
        if self.workers is not None or self.ray or device != "cpu" or frames < _FEW_FRAMES:
            return self
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return replace(self, workers=processors)


AUTO: Final = Placement()
"""The default: child processes where they pay, else this process."""


def split_range(start: int, stop: int, *, batch: int, most: int | None = None) -> Iterator[range]:
    """Cut frames into ranges of whole batches, so that no batch depends on how the work is distributed."""
    step = batch * max(1, (most or RANGE_FRAMES) // batch)
    for first in range(start, stop, step):
        yield range(first, min(first + step, stop))


def model_time_limit_s(frames: int) -> float:
    """Return the time limit of a network for some frames, in seconds: many times what a slow processor needs."""
    return 120.0 + 2.0 * frames
