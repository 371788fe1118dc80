"""Write a video with maps and boxes drawn, in a thread, while frames pass through."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from pipelines.inference.frames import FramePrediction
from pipelines.inference.overlay import draw_overlay
from tcam.types import Box
from tcam.video.pixels import FrameScaler, Pixels
from tcam.video.writer import VideoWriter

_WAITING: Final = 4
"""Maximum number of frames that wait to be drawn and encoded, at their original size: 25 MB in Full HD."""


def save_overlay(
    frames: Iterator[FramePrediction],
    target: Path,
    class_names: Sequence[str],
    *,
    truth: Mapping[int, Sequence[Box]] | None = None,
    uneven: bool = False,
) -> Iterator[FramePrediction]:
    """Yield predictions unchanged while writing an mp4 with map, boxes and (if given) ground-truth boxes.

    Drawing and encoding run in a thread of their own; the caller waits only if that thread falls behind.

    Args:
        frames: predictions with their original pixels, in order.
        target: the mp4; it appears after the last frame.
        class_names: names of the labels.
        truth: ground-truth boxes by frame index.
        uneven: show every frame at its own time, for streams with dropped frames.

    Raises:
        DataError: the video cannot be written.
    """
    first = next(frames, None)
    if first is None:
        return
    second = next(frames, None)
    gap_s = second.box.time_s - first.box.time_s if second is not None else 0.0
    fps = min(max(1 / gap_s, 1.0), 120.0) if gap_s > 0 else 25.0
    target.parent.mkdir(parents=True, exist_ok=True)
    scale = FrameScaler()

    def draw(frame: FramePrediction) -> None:
        drawn = _drawn(frame, class_names, truth.get(frame.box.frame_index, ()) if truth else ())
        if frame.size != first.size:  # pictures of several sizes
            drawn = scale.resize(drawn.transpose(1, 2, 0), first.size)
        writer.write(drawn, time_s=frame.box.time_s - first.box.time_s)

    # The pool is the inner block, so that all frames are drawn before the video is closed.
    with (
        VideoWriter(target, size=first.size, fps=fps, uneven=uneven, drawn=True) as writer,
        ThreadPoolExecutor(1, thread_name_prefix="overlay") as artist,
    ):
        waiting: list[Future[None]] = []
        for frame in itertools.chain((item for item in (first, second) if item is not None), frames):
            if len(waiting) == _WAITING:
                waiting.pop(0).result()
            waiting.append(artist.submit(draw, frame))
            yield frame
        for drawing in waiting:
            drawing.result()


def _drawn(frame: FramePrediction, class_names: Sequence[str], truth: Sequence[Box]) -> Pixels:
    """Return a frame with the map of its most probable tag, the boxes of all of its tags and the true boxes."""
    if frame.original is None:
        raise ValueError("an overlay needs predictions made with keep_original=True")
    return draw_overlay(
        frame.original,
        frame.box.box,
        map=frame.map,
        truth=truth,
        others=[other.box for other in frame.also if other.box is not None],
        caption=", ".join(f"{class_names[found.label]} {found.class_score:.2f}" for found in (frame.box, *frame.also)),
    )
