"""A trained run on one stream of frames: frame in, box out, in the caller's pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.inference.frames import FramePrediction, predict_video
from pipelines.models.engine import Engine, Model, StreamEngine
from pipelines.models.open import open_model
from pipelines.streaming.network_threads import network_threads
from tcam.boxes.over_time import BoxFollower, OverTime
from tcam.errors import ConfigError, DataError
from tcam.types import FrameBox, Pixels, Size
from tcam.video.pixels import FOLDER_FPS, FrameScaler
from tcam.video.reader import DecodedFrame

if TYPE_CHECKING:
    from torch import Tensor


class StreamLocalizer:
    """Localizes objects in the frames of one stream, in order; each stream needs its own.

    It can be pickled, and works in a forked process. Either copy continues where the stream was, with the number of the
    next frame and the boxes followed so far. Unpickling loads an exported file from its path again.

    Args:
        engine: computes the maps of frames.
        class_names: names of the labels.
        size: (height, width) of the network's input.
        threshold: of the map, relative to its maximum, 0..1.
        label: the class to look for; None takes the most probable one in each frame.
        over_time: how boxes are followed over time; None treats each frame separately.
        video_id: name of the stream.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        class_names: tuple[str, ...],
        size: Size,
        threshold: float,
        label: int | None = None,
        over_time: OverTime | None = None,
        video_id: str = "stream",
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be in 0..1, got {threshold}")
        self.class_names, self.size, self.threshold, self.video_id = class_names, size, threshold, video_id
        self.over_time = over_time
        self._engine, self._label = engine, label
        self._follow = None if over_time is None else BoxFollower(over_time)
        self._scale, self._frames = FrameScaler(), 0
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": self._engine.pack()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _engine=state["_engine"].unpack(), _process=os.getpid())

    @classmethod
    def of_run(
        cls,
        run: str | Path,
        *,
        threshold: float | None = None,
        class_name: str | None = None,
        over_time: OverTime | None = None,
        device: str = "auto",
        half: bool = False,
        compiled_for: int | None = None,
        presence: bool = False,
        refine: Literal["joint"] | None = None,
        video_id: str = "stream",
    ) -> StreamLocalizer:
        """Load a finished run or an exported file; without ``threshold`` use its own. ``half`` is for runs only.

        With ``presence``, the run's presence level replaces ``min_score`` of ``over_time``. With ``compiled_for``, the
        network of a run is compiled for batches of that many frames (``torch.compile``), which takes a while; several
        batches of a file then run in parallel. With ``refine="joint"``, the map of a frame agrees with those of the
        last frames before it, at the run's threshold for such maps; it takes some 70 ms more a frame on two cores.

        Raises:
            DataError: it is neither, or has no presence level.
            ConfigError: no such device, a class the run does not know, or an exported file to be compiled or refined.
            MissingPartError: its weights are missing or damaged, or the package that runs the file is not installed;
                or torch.compile does not work here.
        """
        model = open_model(Path(run), device=device, refine=refine or "none", half=half)
        if presence:
            if model.presence is None:
                raise DataError(f"{run} has no level of presence: it has no validation videos; name a number")
            over_time = replace(over_time or OverTime(), min_score=model.presence)
        return cls(
            _engine_of(model, str(run), compiled_for=compiled_for, refine=refine),
            class_names=model.class_names,
            size=model.size,
            threshold=model.threshold if threshold is None else threshold,
            label=model.label_of(class_name),
            over_time=over_time,
            video_id=video_id,
        )

    def step(self, frame: Tensor | NDArray[np.uint8], *, time_s: float | None = None) -> FrameBox:
        """Localize the object in the next frame.

        Args:
            frame: uint8 ``[H, W, 3]``, RGB, of any size.
            time_s: its capture time in seconds, for boxes over time; None assumes 25 frames per second.

        Raises:
            ValueError: another shape or type.
            ForkError: in a process forked from one that used a GPU, or made maps from gradients.
        """
        pixels = check_pixels(frame, "frame", "[H, W, 3]")
        decoded = resize_frame(self._scale, pixels, self.size, index=self._frames, time_s=time_s)
        self._frames += 1
        return next(self.through(iter([decoded]))).box

    def new_stream(self) -> StreamLocalizer:
        """Return a localizer for another stream, at its first frame, with the same settings; it shares the model."""
        engine = self._engine_here()
        return StreamLocalizer(
            engine.new_stream() if isinstance(engine, StreamEngine) else engine,
            class_names=self.class_names,
            size=self.size,
            threshold=self.threshold,
            label=self._label,
            over_time=self.over_time,
            video_id=self.video_id,
        )

    def through(
        self, frames: Iterator[DecodedFrame], *, batch: int = 1, at_once: int | None = None
    ) -> Iterator[FramePrediction]:
        """Localize in decoded frames of the network's input size, ``batch`` at a time; yields one prediction per frame.

        With ``at_once``, the network runs in separate threads: up to that many batches in parallel if the engine
        benefits, and the next batch while boxes are extracted.
        """
        found = self._found(frames, batch) if at_once is None else self._found_by_threads(frames, batch, at_once)
        if self._follow is None:
            return found
        return self._followed(found, self._follow)

    def _found(
        self, frames: Iterator[DecodedFrame], batch: int, threads: Executor | None = None, ahead: int = 1
    ) -> Iterator[FramePrediction]:
        return predict_video(
            self._engine_here(),
            self.video_id,
            frames,
            threshold=self.threshold,
            class_names=self.class_names,
            batch=batch,
            label=self._label,
            threads=threads,
            ahead=ahead,
        )

    def _found_by_threads(self, frames: Iterator[DecodedFrame], batch: int, at_once: int) -> Iterator[FramePrediction]:
        with network_threads(self._engine_here().threads, at_once) as (threads, count):
            yield from self._found(frames, batch, threads, 1 if batch == 1 else count + 1)

    def _engine_here(self) -> Engine:
        """Return the engine; in a process forked since it was loaded, one that works there."""
        if self._process != os.getpid():
            self._engine, self._process = self._engine.after_fork(), os.getpid()
        return self._engine

    def _followed(self, found: Iterator[FramePrediction], follow: BoxFollower) -> Iterator[FramePrediction]:
        for frame in found:
            yield replace(frame, box=follow(frame.box, frame.size))


def _engine_of(model: Model, name: str, *, compiled_for: int | None, refine: Literal["joint"] | None) -> Engine:
    """Load the engine of a model, compiled or with a walk over the last frames where that is asked for.

    Raises:
        ConfigError: both are, or an exported file is to be compiled.
        MissingPartError: torch.compile does not work here.
    """
    engine = model.packed.unpack()
    if compiled_for is None and refine is None:
        return engine
    from pipelines.models.compiled import compile_localizer
    from pipelines.models.localizer import NetworkLocalizer
    from pipelines.models.refinement.last_frames import LastFramesEngine

    if not isinstance(engine, NetworkLocalizer):
        raise ConfigError(f"--compile is for a run, got the exported file {name}: leave it out")
    if compiled_for is None:
        return LastFramesEngine(engine)
    if refine is not None:
        raise ConfigError(f"--compile and --refine {refine} do not go together: leave one out")
    return compile_localizer(engine, model.size, batch=compiled_for, threads="all" if compiled_for == 1 else "each")


def resize_frame(
    scale: FrameScaler, pixels: Pixels, size: Size, *, index: int, time_s: float | None = None
) -> DecodedFrame:
    """Resize a caller's frame, uint8 ``[H, W, 3]``, like frames of a video; the default is 25 frames per second."""
    return DecodedFrame(
        index=index,
        time_s=index / FOLDER_FPS if time_s is None else time_s,
        pixels=scale.resize(pixels, size),
        original=None,
        original_size=(pixels.shape[0], pixels.shape[1]),
    )


def check_pixels(frames: Tensor | NDArray[np.uint8], name: str, shape: str, *, hint: str = "") -> Pixels:
    """Return the caller's frames as an array; ``shape`` is, for example, ``[H, W, 3]``, with RGB as the last axis.

    Raises:
        ValueError: another type, shape or dtype; ``hint`` is appended to the message.
    """
    pixels = np.asarray(frames.cpu() if hasattr(frames, "cpu") else frames)
    axes = shape.split(", ")
    if pixels.dtype != np.uint8 or pixels.ndim != len(axes) or pixels.shape[-1] != 3 or not all(pixels.shape[-3:]):
        raise ValueError(f"{name} must be uint8 {shape}, got {pixels.dtype} {list(pixels.shape)}{hint}")
    return pixels
