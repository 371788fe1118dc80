"""What looks at frames, whoever computes it: a trained run in PyTorch, or an exported file in another runtime.

Nothing here or in what it imports needs PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from numpy.typing import NDArray

from tcam.video.pixels import Pixels

Threads = Literal["each", "one", "all"]
"""How an engine computes best on several processors: ``each`` batch on one, side by side; all on ``one``, as two would
give other last bits; one batch on ``all``, which it shares out itself."""


Array = TypeVar("Array")


@dataclass(frozen=True, slots=True)
class FrameMaps(Generic[Array]):
    """Maps and class probabilities of N frames: of tensors on a device, or of NumPy arrays (``ArrayMaps``).

    Attributes:
        maps: float32 ``[N, H, W]`` in 0..1 at input size.
        probabilities: float32 ``[N, K]``, of the K classes.
        labels: int64 ``[N]``, the class of each map: the one asked for, or the most probable.
    """

    maps: Array
    probabilities: Array
    labels: Array


ArrayMaps = FrameMaps[NDArray[Any]]


class Engine(Protocol):
    """Looks at uint8 RGB frames ``[N, 3, H, W]`` for one class, or (None) for the most probable one in each."""

    @property
    def threads(self) -> Threads:
        """How it is to be called; ``find`` may be called from several threads at once where this is ``each``."""
        ...

    def find(self, frames: Pixels, label: int | None) -> ArrayMaps:
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
