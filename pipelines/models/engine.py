"""What looks at frames, whoever computes it: a trained run in PyTorch, or an exported file in another runtime.

Nothing here or in what it imports needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from numpy.typing import NDArray

from tcam.errors import ConfigError
from tcam.types import Size
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


@dataclass(frozen=True, slots=True)
class Model:
    """What boxes are made with.

    Attributes:
        packed: what makes maps of frames.
        class_names: names behind the labels.
        size: (height, width) of the frames it takes.
        threshold: the map threshold that the run chose.
        presence: below it a frame seems to hold nothing (``tcam.boxes.over_time.presence_of``); None: unknown.
        memory_limit_mb: of a process that works with it.
        about: what a box table says of where it comes from.
    """

    packed: PackedEngine
    class_names: tuple[str, ...]
    size: Size
    threshold: float
    presence: float | None
    memory_limit_mb: float
    about: Mapping[str, object]

    def label_of(self, class_name: str | None) -> int | None:
        """Return the label of a class by its name; None for None.

        Raises:
            ConfigError: there is no such class.
        """
        if class_name is None:
            return None
        if class_name not in self.class_names:
            raise ConfigError(f"--class {class_name}: the run knows {', '.join(self.class_names)}")
        return self.class_names.index(class_name)
