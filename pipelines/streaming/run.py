"""What ``tcam stream`` does: localize in a source and write one line of JSON per frame, as soon as it is known."""

from __future__ import annotations

import contextlib
import errno
import json
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import IO, Final, Literal

from pipelines.data.find import Source, find_files
from pipelines.inference.frames import FramePrediction
from pipelines.inference.outputs import check_outputs
from pipelines.inference.overlay_video import save_overlay
from pipelines.inference.rows import as_dict, edges, row_of
from pipelines.inference.videos import Predict
from pipelines.run.console import console
from pipelines.run.signals import finishing, interrupted_by
from pipelines.streaming.feed import Drop, FedFrame, FrameFeed, Patience
from pipelines.streaming.live_view import LiveView, open_view
from pipelines.streaming.localizer import StreamLocalizer
from tcam.boxes.over_time import OverTime
from tcam.errors import ConfigError, StreamError, TcamError
from tcam.files import cannot_write
from tcam.video.live import LiveSource
from tcam.video.reader import DecodedFrame

BATCH: Final = 8
"""Frames of a file per forward pass, the default of ``tcam predict``; a live source uses 1."""
MOST_AT_ONCE: Final = 8
"""Maximum number of batches of a file in the network in parallel; more would hold many frames in memory."""
_WINDOW: Final = 512
"""Number of latest frames that the rates and lags of the status line are computed from."""


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """Flags of ``tcam stream``."""

    run: Path
    source: str
    output: str
    save_video: Path | None
    drop: Drop | None
    patience: Patience
    threshold: float | None
    class_name: str | None
    smooth_hz: float | None
    min_score: float | None
    device: str
    half: bool = False
    refine: Literal["joint"] | None = None
    compile: bool = False
    budget_ms: float | None = None
    view: int | None = None
    show: bool = False


@dataclass(frozen=True, slots=True)
class StreamedFrame:
    """The prediction for a frame, its lag since it became available, and the number of frames dropped so far."""

    prediction: FramePrediction
    lag_s: float
    dropped: int


def find_source(text: str) -> Path | LiveSource:
    """Return what ``--source`` names: a live source, or one video file or frame folder.

    Raises:
        DataError: there is no such file.
        ConfigError: it names several videos.
    """
    live = LiveSource.parse(text)
    if live is not None:
        return live
    found = find_files(text)
    if len(found) > 1:
        raise ConfigError(f"--source {text}: expected one video, found {len(found)}; 'tcam predict' takes many")
    return found[0]


def batch_of(source: Path | LiveSource, *, latest: bool) -> int:
    """Return how many frames go through the network at once: 1 for a live source, or if only the newest is kept."""
    return BATCH if isinstance(source, Path) and not latest else 1


def localize(localizer: StreamLocalizer, feed: FrameFeed, *, save_video: Path | None = None) -> Iterator[StreamedFrame]:
    """Localize in the frames of an open feed, in order; files in batches, with the same boxes as ``tcam predict``.

    Args:
        localizer: of this stream only.
        feed: inside its ``with`` block; it must keep the original pixels if a video is saved.
        save_video: mp4 to write, with map and box drawn over every frame.

    Raises:
        StreamError: a live source could not be reached, or was lost for good.
        VideoError: a file, camera or standard input cannot be read.
    """
    is_file = isinstance(feed.source, Path)
    passing: deque[FedFrame] = deque()  # frames in the network; they come out in order
    batch = batch_of(feed.source, latest=feed.latest)  # threads give a file the boxes of `tcam predict`
    found = localizer.through(_remember(feed, passing), batch=batch, at_once=MOST_AT_ONCE if is_file else None)
    if save_video is not None:
        found = save_overlay(found, save_video, localizer.class_names, uneven=True)
    for frame in found:
        fed = passing.popleft()
        yield StreamedFrame(frame, time.monotonic() - fed.due_s, fed.dropped)
    feed.check()


def _remember(feed: FrameFeed, passing: deque[FedFrame]) -> Iterator[DecodedFrame]:
    for fed in feed:
        passing.append(fed)
        yield fed.frame


def predict_live(source: Source, live: LiveSource, work: Predict) -> Iterator[FramePrediction]:
    """Localize in every frame of a live source until it ends, for ``tcam predict`` with an address.

    Raises:
        StreamError: it could not be reached, or was lost for good.
        VideoError: it holds no video.
    """
    localizer = StreamLocalizer(
        work.engine.unpack(),
        class_names=work.class_names,
        size=work.size,
        threshold=work.threshold,
        label=work.label,
        video_id=source.video_id,
    )
    with FrameFeed(live, size=work.size, drop=Drop(), keep_original=source.overlay is not None) as feed:
        for frame in localize(localizer, feed, save_video=source.overlay):
            yield FramePrediction(frame.prediction.box, frame.prediction.size)


def stream_source(request: StreamRequest, *, quiet: bool) -> None:
    """Localize in a source until it ends, is lost or a signal arrives; the last line tells which.

    Raises:
        StreamError: the source could not be reached, or was lost for good.
        ConfigError: the port for the page is not free.
        Interrupted: a signal arrived; all that was started is written.
    """
    console.quiet = quiet
    source = find_source(request.source)
    inputs = [source] if isinstance(source, Path) else []
    check_outputs([] if request.output == "-" else [Path(request.output)], inputs, flag="-o")
    check_outputs([] if request.save_video is None else [request.save_video], inputs, flag="--save-video")
    if request.budget_ms is not None and isinstance(source, Path):
        raise ConfigError(f"--budget is for live sources, got the file {request.source}: leave it out")
    with open_view(request.view, _name_of(source), show=request.show) as view:
        _stream(request, source, view)


def _name_of(source: Path | LiveSource) -> str:
    return source.name if isinstance(source, Path) else str(source)


def _stream(request: StreamRequest, source: Path | LiveSource, view: LiveView | None) -> None:
    localizer = StreamLocalizer.of_run(
        request.run,
        threshold=request.threshold,
        class_name=request.class_name,
        over_time=OverTime(request.smooth_hz, min_score=request.min_score or 0.0),
        presence=request.min_score is None,
        device=request.device,
        half=request.half,
        refine=request.refine,
        compiled_for=batch_of(source, latest=request.drop is not None and request.drop.latest)
        if request.compile
        else None,
        video_id=_name_of(source),
    )
    keep = request.save_video is not None or view is not None
    feed = FrameFeed(
        source,
        size=localizer.size,
        drop=request.drop,
        keep_original=keep,
        patience=request.patience,
        budget_s=None if request.budget_ms is None else request.budget_ms / 1000,
    )
    status = _Status(feed)
    with finishing(), _open_lines(request.output) as write:
        try:
            with feed:
                for frame in localize(localizer, feed, save_video=request.save_video):
                    status.add(frame)
                    row = stream_row(frame, localizer.threshold)
                    write(row)
                    if view is not None:
                        view.show(frame.prediction, row, status.figures)
        except TcamError as error:
            write({"end": "lost" if isinstance(error, StreamError) else "error", "why": str(error), **status.totals()})
            raise
        write({"end": "source ended" if interrupted_by() is None else "interrupted", **status.totals()})
        status.finish()


def stream_row(frame: StreamedFrame, threshold: float) -> dict[str, object]:
    """Return the JSON line of a frame: the row of a box table, and fields that only a stream has.

    ``raw_box`` is the box of this frame before boxes are followed over time. ``lag_ms`` is the time since the frame
    became available, ``dropped`` the number of frames dropped so far.
    """
    found = frame.prediction
    return {
        **as_dict(row_of(found.box, size=found.size, threshold=threshold)),
        "raw_box": edges(found.box.raw_box),
        "lag_ms": round(1000 * frame.lag_s, 1),
        "dropped": frame.dropped,
    }


class _Writing:
    """Writes JSON Lines, flushing after each line, as readers wait for every one."""

    def __init__(self, stream: IO[str], name: str) -> None:
        self._stream, self._name = stream, name

    def __call__(self, row: Mapping[str, object]) -> None:
        try:
            self._stream.write(json.dumps(row, allow_nan=False) + "\n")
            self._stream.flush()
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the reader of the pipe is gone: not a disk error
            raise cannot_write(Path(self._name), error) from None


@contextlib.contextmanager
def _open_lines(target: str) -> Iterator[_Writing]:
    """Open the output; a file is written line by line, as an endless stream is never complete."""
    if target == "-":
        yield _Writing(sys.stdout, "standard output")
        return
    path = Path(target)
    if path.suffix.lower() != ".jsonl":
        raise ConfigError(f"-o {target}: expected a name that ends in .jsonl, or - for standard output")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("w", encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, error) from None
    with stream:
        yield _Writing(stream, target)


class _Status:
    """Rates, lags and losses, printed on stderr: every second on a terminal, every 30 seconds in a log."""

    def __init__(self, feed: FrameFeed) -> None:
        self._feed, self._frames = feed, 0
        self._lags_ms: deque[float] = deque(maxlen=_WINDOW)
        self._times_s: deque[float] = deque(maxlen=_WINDOW)
        self._every_s = 1.0 if console.is_terminal else 30.0
        self._next_s = time.monotonic() + self._every_s

    def add(self, frame: StreamedFrame) -> None:
        """Count a frame."""
        now = time.monotonic()
        self._frames += 1
        self._lags_ms.append(1000 * frame.lag_s)
        self._times_s.append(now)
        if now >= self._next_s:
            self._next_s = now + self._every_s
            console.print(self._line(), end="\r" if console.is_terminal else "\n")

    def finish(self) -> None:
        """Print the last line."""
        console.print(self._line())

    def totals(self) -> dict[str, int]:
        """Return what the last line of JSON holds besides the reason."""
        return {"frames": self._frames, "dropped": self._feed.dropped, "reconnects": self._feed.reconnected}

    def figures(self) -> dict[str, float]:
        """Return the totals, and the frame rate and lags of the latest frames; any thread may call this."""
        times_s, lags_ms = tuple(self._times_s), tuple(self._lags_ms)
        span_s = times_s[-1] - times_s[0] if len(times_s) > 1 else 0.0
        cuts = quantiles(lags_ms, n=20, method="inclusive") if len(lags_ms) > 1 else [0.0] * 19
        fps = (len(times_s) - 1) / span_s if span_s else 0.0
        return {**self.totals(), "fps": fps, "lag_ms": cuts[9], "lag_p95_ms": cuts[18]}

    def _line(self) -> str:
        return (
            "{frames} frames, {fps:.1f} fps, lag {lag_ms:.0f} ms (p95 {lag_p95_ms:.0f}), "
            "{dropped} dropped, {reconnects} reconnects"
        ).format(**self.figures())
