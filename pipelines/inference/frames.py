"""From a video to one row per frame, in batches of a few frames, whatever the length of the video."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipelines.models.engine import ArrayMaps, Engine, frames_per_pass
from tcam.boxes.extract import extract_boxes
from tcam.types import FrameBox, FrameGeometry, Size
from tcam.video.pixels import Pixels
from tcam.video.reader import DecodedFrame

PRESENT: Final = 0.5
"""Probability from which a tag is in a frame, where several may be."""

_Chunk = list[DecodedFrame]


@dataclass(frozen=True, slots=True)
class FramePrediction:
    """The prediction for one frame: its box, original size (height, width) and, if kept, its pixels and its map.

    ``also`` are the boxes of further tags that are in the frame, where several may be.
    """

    box: FrameBox
    size: Size
    original: Pixels | None = None
    map: NDArray[np.float32] | None = None
    also: tuple[FrameBox, ...] = ()


def predict_video(
    engine: Engine,
    video_id: str,
    frames: Iterator[DecodedFrame],
    *,
    threshold: float,
    class_names: Sequence[str],
    batch: int = 8,
    label: int | None = None,
    every_tag: bool = False,
    threads: Executor | None = None,
    ahead: int = 1,
) -> Iterator[FramePrediction]:
    """Localize in every frame of a video, in order.

    Args:
        engine: the trained run, or an exported file.
        video_id: name of the video in the rows.
        frames: of the video, at the network's input size, as ``stream_frames`` yields them.
        threshold: of the map, relative to its maximum, 0..1.
        class_names: names of the labels.
        batch: frames per forward pass. A PyTorch network on a CPU takes at most 8: more are no faster there, and can
            change the last bits of the result.
        label: the class to look for; None takes the most probable one in each frame.
        every_tag: without ``label``, also take others of a probability of at least 0.5; each costs a pass of the batch.
        threads: where the engine runs, see ``network_threads``; None: in this thread.
        ahead: maximum number of batches in progress, including the one whose boxes are extracted next.

    Raises:
        VideoError: the video cannot be read.
    """
    find = partial(_find, engine, label=label, every_tag=every_tag and label is None)
    chunks = _chunks(frames, frames_per_pass(engine, batch))
    results = ((chunk, find(chunk)) for chunk in chunks) if threads is None else _ahead(threads, find, chunks, ahead)
    for chunk, (first, *others) in results:
        boxes = partial(find_boxes, video_id=video_id, chunk=chunk, threshold=threshold, class_names=class_names)
        more = [[item.box for item in boxes(maps)] for maps in others]
        for i, prediction in enumerate(boxes(first)):
            yield _with_others(prediction, [tag[i] for tag in more])


def _with_others(prediction: FramePrediction, boxes: Sequence[FrameBox]) -> FramePrediction:
    """Add the boxes of other tags that are present in the frame."""
    also = tuple(b for b in boxes if b.class_score >= PRESENT and b.label != prediction.box.label)
    return replace(prediction, also=also) if also else prediction


def _find(engine: Engine, chunk: _Chunk, *, label: int | None, every_tag: bool) -> list[ArrayMaps]:
    """Return the maps of some frames: of a class or the most probable one and, if wanted, of each other present tag."""
    pixels = np.stack([frame.pixels for frame in chunk])
    first = engine.find(pixels, label)
    if not every_tag:
        return [first]
    others = first.probabilities >= PRESENT
    others[np.arange(len(chunk)), first.labels] = False
    return [first, *(engine.find(pixels, int(tag)) for tag in np.flatnonzero(others.any(axis=0)))]


def _ahead(
    threads: Executor, find: Callable[[_Chunk], list[ArrayMaps]], chunks: Iterator[_Chunk], ahead: int
) -> Iterator[tuple[_Chunk, list[ArrayMaps]]]:
    """Keep some chunks running ahead of the one that is yielded."""
    running: deque[tuple[_Chunk, Future[list[ArrayMaps]]]] = deque()
    try:
        for chunk in chunks:
            running.append((chunk, threads.submit(find, chunk)))
            if len(running) >= ahead:
                first, found = running.popleft()
                yield first, found.result()
        while running:
            first, found = running.popleft()
            yield first, found.result()
    finally:
        for _, found in running:
            found.cancel()


def _chunks(frames: Iterator[DecodedFrame], batch: int) -> Iterator[list[DecodedFrame]]:
    while chunk := list(itertools.islice(frames, batch)):
        yield chunk


def find_boxes(
    result: ArrayMaps,
    video_id: str,
    chunk: Sequence[DecodedFrame],
    *,
    threshold: float,
    class_names: Sequence[str],
) -> Iterator[FramePrediction]:
    """Extract the boxes of frames from their maps."""
    input_size = (result.maps.shape[1], result.maps.shape[2])
    geometries = [FrameGeometry.plain_resize(frame.original_size, input_size) for frame in chunk]
    boxes = extract_boxes(result.maps, threshold, geometries)
    for i, (frame, box) in enumerate(zip(chunk, boxes, strict=True)):
        score = 0.0
        if box is not None:
            height, width = frame.original_size
            rows = slice(round(box.y0 / height * input_size[0]), max(1, round(box.y1 / height * input_size[0])))
            columns = slice(round(box.x0 / width * input_size[1]), max(1, round(box.x1 / width * input_size[1])))
            score = float(result.maps[i, rows, columns].mean())
        found = FrameBox(
            video_id=video_id,
            frame_index=frame.index,
            time_s=frame.time_s,
            label=int(result.labels[i]),
            class_score=float(result.probabilities[i, result.labels[i]]),
            score=score,
            box=box,
            map_peak=float(result.maps[i].max()),
            class_name=class_names[int(result.labels[i])],
        )
        yield FramePrediction(found, frame.original_size, frame.original, result.maps[i])
