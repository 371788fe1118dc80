"""A video with maps and boxes drawn, written while frames pass through."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipelines.overlay import draw_overlay
from pipelines.predict import FramePrediction
from tcam.types import Box
from tcam.video.writer import VideoWriter


def save_overlay(
    frames: Iterator[FramePrediction],
    target: Path,
    class_names: Sequence[str],
    *,
    truth: Mapping[int, Sequence[Box]] | None = None,
    uneven: bool = False,
) -> Iterator[FramePrediction]:
    """Hand predictions on while an mp4 with map, box and (where known) true boxes is written.

    Args:
        frames: predictions with their original pixels, in order.
        target: the mp4; it appears when the last frame is through.
        class_names: names behind the labels.
        truth: boxes by frame index.
        uneven: show every frame at its own time, as where some were left out.
    """
    first = next(frames, None)
    if first is None:
        return
    second = next(frames, None)
    gap_s = second.box.time_s - first.box.time_s if second is not None else 0.0
    fps = min(max(1 / gap_s, 1.0), 120.0) if gap_s > 0 else 25.0
    target.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(target, size=first.size, fps=fps, uneven=uneven) as writer:
        for frame in itertools.chain((item for item in (first, second) if item is not None), frames):
            if frame.original is None:
                raise ValueError("an overlay needs predictions made with keep_original=True")
            boxes = truth.get(frame.box.frame_index, ()) if truth else ()
            caption = f"{class_names[frame.box.label]} {frame.box.class_score:.2f}"
            drawn = draw_overlay(frame.original, frame.box.box, map=frame.map, truth=boxes, caption=caption)
            writer.write(drawn, time_s=frame.box.time_s - first.box.time_s)
            yield frame
