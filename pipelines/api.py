"""The Python entry: ``tcam.predict`` and ``tcam.StreamLocalizer`` come from here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, overload

from pipelines.streaming.feed import FrameFeed
from pipelines.streaming.localizer import StreamLocalizer
from pipelines.streaming.run import find_source, localize
from tcam.types import FrameBox
from tcam.video.live import LiveSource

__all__ = ["StreamLocalizer", "predict"]


@overload
def predict(source: str | Path, *, run: str | Path | StreamLocalizer, stream: Literal[True]) -> Iterator[FrameBox]: ...


@overload
def predict(
    source: str | Path, *, run: str | Path | StreamLocalizer, stream: Literal[False] = ...
) -> list[FrameBox]: ...


def predict(
    source: str | Path, *, run: str | Path | StreamLocalizer, stream: bool = False
) -> Iterator[FrameBox] | list[FrameBox]:
    """Box the tagged object in every frame of a video file, a frame folder or a live source.

    Args:
        source: what ``tcam stream`` takes as ``--source``.
        run: folder of a finished run, a file of ``tcam export``, or ``StreamLocalizer.of_run`` with its settings.
        stream: give each frame's box as soon as it is known; else all of them at the end, as a list.

    Raises:
        TcamError: the run or the source is not there, or the source cannot be read to its end.
    """
    localizer = run if isinstance(run, StreamLocalizer) else StreamLocalizer.of_run(run)
    found = _predict(find_source(str(source)), localizer)
    return found if stream else list(found)


def _predict(source: Path | LiveSource, localizer: StreamLocalizer) -> Iterator[FrameBox]:
    with FrameFeed(source, size=localizer.size) as feed:
        for frame in localize(localizer, feed):
            yield frame.prediction.box
