"""The interface of engines, which make maps of frames: a trained run in PyTorch, an exported file in another runtime.

Neither this module nor what it imports needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, Protocol, TypeVar, runtime_checkable

from numpy.typing import NDArray

from tcam.errors import ConfigError, some_of
from tcam.types import Size
from tcam.video.pixels import Pixels

Threads = Literal["each", "one", "all"]
"""How an engine uses several processors: ``each`` runs one batch per processor, side by side; ``one`` uses a single
processor, because two would change the last bits; ``all`` shares each batch among them by itself."""

MOST_ON_CPU: Final = 8
"""Frames per batch, as many as ``stream`` takes of a file (``stream.BATCH``), so that both compute the same bits."""

Refinement = Literal["none", "crf", "joint"]
"""What goes over the maps at the end: a CRF over each frame, or a walk that makes the maps of a video agree."""

Array = TypeVar("Array")


@dataclass(frozen=True, slots=True)
class FrameMaps(Generic[Array]):
    """Maps and class probabilities of N frames, as tensors on a device or as NumPy arrays (``ArrayMaps``).

    Attributes:
        maps: float32 ``[N, H, W]`` in 0..1 at input size.
        probabilities: float32 ``[N, K]``, of the K classes.
        labels: int64 ``[N]``, the class of each map: the requested or the most probable one.
        features: float32 ``[N, C, h, w]`` for a walk that makes maps agree; None where none is wanted.
    """

    maps: Array
    probabilities: Array
    labels: Array
    features: Array | None = None


ArrayMaps = FrameMaps[NDArray[Any]]


class Engine(Protocol):
    """Makes maps of uint8 RGB frames ``[N, 3, H, W]``, for one class or (None) for the most probable one of each."""

    @property
    def threads(self) -> Threads:
        """How it uses processors; ``find`` may be called from several threads at once only if this is ``each``."""
        ...

    def find(self, frames: Pixels, label: int | None) -> ArrayMaps:
        """Return maps, class probabilities and labels of the frames."""
        ...

    def pack(self) -> PackedEngine:
        """Return a form of it that can be sent to another process."""
        ...

    def after_fork(self) -> Engine:
        """Return an engine that works in this process, which was forked from the one that loaded this engine.

        Raises:
            ForkError: it cannot work in a forked process.
        """
        ...


@runtime_checkable
class StreamEngine(Engine, Protocol):
    """An engine that remembers the frames it has seen; they must come in the order of one stream."""

    def new_stream(self) -> Engine:
        """Return an engine for another stream, at its first frame."""
        ...


def frames_per_pass(engine: Engine, batch: int) -> int:
    """Return the number of frames in a forward pass of an engine where ``batch`` are asked for."""
    return batch if engine.threads == "all" else min(batch, MOST_ON_CPU)


class PackedEngine(Protocol):
    """An engine that can be pickled and sent to another process; it is loaded when it is unpacked."""

    @property
    def device_type(self) -> str:
        """``cpu``, ``cuda`` or ``mps``."""
        ...

    def unpack(self) -> Engine:
        """Load the engine."""
        ...


@dataclass(frozen=True, slots=True)
class Model:
    """All that is needed to make boxes of frames.

    Attributes:
        packed: the engine.
        class_names: by label.
        size: (height, width) of the frames it takes.
        threshold: the map threshold that the run chose.
        presence: frames below this level probably hold no object (``tcam.boxes.over_time.presence_of``); None if
            unknown.
        memory_limit_mb: memory limit of a process that uses it.
        about: what a box table records about the model.
        walks: whether the maps of a video's frames are made to agree (``joint``).
        several_tags: whether a frame may have several tags, with a probability each.
    """

    packed: PackedEngine
    class_names: tuple[str, ...]
    size: Size
    threshold: float
    presence: float | None
    memory_limit_mb: float
    about: Mapping[str, object]
    walks: bool = False
    several_tags: bool = False

    def label_of(self, class_name: str | None) -> int | None:
        """Return the label of a class name; None for None.

        Raises:
            ConfigError: there is no such class, or none was named and maps of several would be made to agree.
        """
        if class_name is None and self.walks and self.several_tags:
            raise ConfigError(
                "--refine joint makes the maps of one class agree, and frames of this run may show several: name one "
                "with --class, or leave --refine out"
            )
        if class_name is None:
            return None
        if class_name not in self.class_names:
            raise ConfigError(f"--class {class_name}: the run knows {some_of(self.class_names)}")
        return self.class_names.index(class_name)
