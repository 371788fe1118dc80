"""What looks at frames, whoever computes it: a trained run in PyTorch, or an exported file in another runtime.

Nothing here or in what it imports needs PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tcam.video.pixels import Pixels

Threads = Literal["each", "one", "all"]
"""How an engine computes best on several processors: ``each`` batch on one, side by side; all on ``one``, as two would
give other last bits; one batch on ``all``, which it shares out itself."""


@dataclass(frozen=True, slots=True)
class FoundMaps:
    """What an engine says of N frames.

    Attributes:
        maps: float32 ``[N, H, W]`` in 0..1 at input size.
        labels: int64 ``[N]``, the class each map is of: the given one, or the most probable.
        class_scores: float32 ``[N]``, the probability of that class.
    """

    maps: NDArray[np.float32]
    labels: NDArray[np.int64]
    class_scores: NDArray[np.float32]


class Engine(Protocol):
    """Looks at uint8 RGB frames ``[N, 3, H, W]`` for one class, or (None) for the most probable one in each."""

    @property
    def threads(self) -> Threads:
        """How it is to be called; ``find`` may be called from several threads at once where this is ``each``."""
        ...

    def find(self, frames: Pixels, label: int | None) -> FoundMaps:
        """Return maps, classes and their scores."""
        ...

    def pack(self) -> PackedEngine:
        """Return it packed for another process."""
        ...

    def after_fork(self) -> Engine:
        """Return one that works in this process, which was forked from the one that loaded it.

        Raises:
            ForkError: there is none.
        """
        ...


class PackedEngine(Protocol):
    """An engine on its way to another process: it can be pickled, and is loaded where it is unpacked."""

    @property
    def device_type(self) -> str:
        """``cpu``, ``cuda`` or ``mps``."""
        ...

    def unpack(self) -> Engine:
        """Load the engine."""
        ...
