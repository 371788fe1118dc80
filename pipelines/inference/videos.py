"""Distribute many or long videos over workers: count their frames, cut them into ranges, join the results in order."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.find import Source
from pipelines.inference.frames import FramePrediction, predict_video
from pipelines.inference.overlay_video import save_overlay
from pipelines.models.engine import PackedEngine
from pipelines.parallel.map import ItemFailure, ordered_map
from pipelines.parallel.placement import Placement, model_time_limit_s, split_range
from pipelines.run.console import item_bar
from pipelines.run.files import hash_content
from tcam.errors import VideoError
from tcam.files import file_size
from tcam.types import Size
from tcam.video.frame_files import ImageSequence, is_image_sequence
from tcam.video.reader import DecodedFrame, RangeStream, count_frames, stream_frames

if TYPE_CHECKING:
    from pipelines.inference.walked import WalkedPart, WalkedPredictor

_LONGEST_S = 3 * 3600.0
"""Time limit of a video that cannot be cut, because its number of frames is unknown."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a video before prediction.

    ``content`` is a hash of its content (if requested), ``num_frames`` is 0 if uncertain; ``notes`` say how pictures
    are read.
    """

    content: str | None
    num_frames: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VideoPart:
    """A work item: a range of frames of a video, or (``frames`` None) all frames from ``first`` on, read in order."""

    source: Source
    frames: range | None
    num_frames: int
    first: int = 0

    def __str__(self) -> str:
        part = "" if self.frames is None else f" {self.frames.start}-{self.frames.stop}"
        return f"{self.source}{part}"


@dataclass(frozen=True, slots=True)
class Predict:
    """Settings of a prediction; a call loads the model and returns the function that predicts a part.

    Attributes:
        engine: the trained run, or an exported file.
        size: network input, (height, width).
        threshold: of the map, relative to its maximum.
        batch: frames per forward pass.
        class_names: names of the labels.
        label: the class to look for; None takes the most probable one in each frame.
        every_tag: whether a frame may have several tags, so that each that is present gets a box.
        walks: whether the maps of a video's frames are made to agree; the engine is then a PyTorch network.
    """

    engine: PackedEngine
    size: Size
    threshold: float
    batch: int
    class_names: tuple[str, ...]
    label: int | None
    every_tag: bool = False
    walks: bool = False

    def __call__(self) -> Callable[[VideoPart], list[FramePrediction] | None]:
        """Load the model."""
        return Predictor(self)


class Predictor:
    """Holds the model and the file read last; returns None for a part of a video that turns out to be damaged."""

    def __init__(self, settings: Predict) -> None:
        self._settings = settings
        self._engine = settings.engine.unpack()
        self._stream: RangeStream | None = None
        self._walked: WalkedPredictor | None = None
        if settings.walks:
            from pipelines.inference.walked import WalkedPredictor  # it loads PyTorch

            self._walked = WalkedPredictor.of_engine(self._engine, settings.batch)

    def __call__(self, part: VideoPart) -> list[FramePrediction] | None:
        """Predict the frames of a part."""
        if part.frames is None:
            return self._read_on(part.source, part.first)
        walked = None if self._walked is None else self._walked.part(part.frames, num_frames=part.num_frames)
        try:
            if self._stream is None or self._stream.path != part.source.path:
                if self._stream is not None:
                    self._stream.close()
                size = self._settings.size
                self._stream = RangeStream(part.source.path, num_frames=part.num_frames, size=size)
            frames = self._stream.read(part.frames if walked is None else walked.read)
            return list(map(_row, self._predict(part.source, frames, walked)))
        except VideoError:
            self._stream = None
            return None

    def _read_on(self, source: Source, first: int) -> list[FramePrediction]:
        """Predict a video from a frame on, reading it in order from its start: correct even if it is damaged."""
        frames = stream_frames(source.path, size=self._settings.size, keep_original=source.overlay is not None)
        if self._walked is None:
            found = self._predict(source, (frame for frame in frames if frame.index >= first))
        else:
            found = self._predict(source, frames, self._walked.rest(first))
        if source.overlay is not None:
            found = save_overlay(found, source.overlay, self._settings.class_names)
        return [_row(frame) for frame in found]

    def _predict(
        self, source: Source, frames: Iterator[DecodedFrame], walked: WalkedPart | None = None
    ) -> Iterator[FramePrediction]:
        settings = self._settings
        predict = functools.partial(predict_video, self._engine, batch=settings.batch, every_tag=settings.every_tag)
        if self._walked is not None and walked is not None:
            predict = functools.partial(self._walked.predict, part=walked)
        return predict(
            video_id=source.video_id,
            frames=frames,
            threshold=settings.threshold,
            class_names=settings.class_names,
            label=settings.label,
        )


def _row(frame: FramePrediction) -> FramePrediction:
    """Drop pixels and map: rows wait in memory and are sent between processes."""
    return FramePrediction(frame.box, frame.size, also=frame.also)


def look_at(
    sources: Sequence[Source], *, placement: Placement, memory_limit_mb: float, hashed: bool
) -> list[Known | str]:
    """Count the frames of videos and optionally hash their content; a string says why a video cannot be read."""
    with item_bar("look") as progress:
        results = ordered_map(
            _start_hashing if hashed else _start_counting,
            sources,
            placement=placement,
            time_limit_s=lambda source: 60.0 + file_size(source.path) / 5e6,
            memory_limit_mb=memory_limit_mb,
            holds_model=True,  # on Ray, these are actors that end with this map
            progress=progress,
        )
        return [result.reason if isinstance(result, ItemFailure) else result for result in results]


def _start_counting() -> Callable[[Source], Known]:
    return lambda source: _look(source.path, hashed=False)  # created in the worker: it need not be pickled


def _start_hashing() -> Callable[[Source], Known]:
    return lambda source: _look(source.path, hashed=True)


def _look(path: Path, *, hashed: bool) -> Known:
    content = hash_content(path) if hashed else None
    try:
        if is_image_sequence(path):
            with ImageSequence(path) as images:
                return Known(content, len(images), images.notes())
        return Known(content, count_frames(path))
    except VideoError:
        return Known(content, 0)  # predicting it raises the error


def predict_all(
    videos: Sequence[tuple[Source, Known]], work: Predict, *, placement: Placement, memory_limit_mb: float
) -> Iterator[tuple[Source, Iterator[FramePrediction]]]:
    """Yield the rows of every video, in order; they are byte-identical however the work is distributed.

    Consume the rows of one video before taking the next. Consuming them raises ``VideoError`` if the video cannot be
    read or a worker failed.
    """
    parts = [part for source, known in videos for part in _cut(source, known, work)]
    frames = sum(known.num_frames for _, known in videos)
    settled = placement.settled(work.engine.device_type, frames)
    # The rest of a damaged video gets a process of its own, as all workers are busy.
    alone = settled if settled.here else Placement(1)
    run = functools.partial(ordered_map, work, time_limit_s=_time_limit_s, memory_limit_mb=memory_limit_mb)
    with item_bar("predict") as progress:
        results = run(parts, placement=settled, holds_model=True, progress=progress)
        pairs = zip(parts, results, strict=True)
        for source, found in itertools.groupby(pairs, key=lambda pair: pair[0].source):
            yield source, _join(found, lambda rest: next(run([rest], placement=alone)))


def _time_limit_s(part: VideoPart) -> float:
    return _LONGEST_S if part.frames is None else model_time_limit_s(len(part.frames))


def _cut(source: Source, known: Known, work: Predict) -> Iterator[VideoPart]:
    if source.overlay is not None or not known.num_frames:  # an encoder needs the frames in order
        yield VideoPart(source, None, known.num_frames)
        return
    for frames in split_range(0, known.num_frames, batch=work.batch):
        yield VideoPart(source, frames, known.num_frames)


def _join(
    found: Iterator[tuple[VideoPart, list[FramePrediction] | ItemFailure | None]],
    read_on: Callable[[VideoPart], list[FramePrediction] | ItemFailure | None],
) -> Iterator[FramePrediction]:
    for part, rows in found:
        if rows is None and part.frames is not None:
            # All packets before this part gave their frame; from here on, frames can only be counted in order.
            yield from _checked(read_on(VideoPart(part.source, None, part.num_frames, part.frames.start)))
            return
        yield from _checked(rows)


def _checked(rows: list[FramePrediction] | ItemFailure | None) -> list[FramePrediction]:
    if isinstance(rows, ItemFailure):
        raise VideoError(rows.reason)
    return rows or []
