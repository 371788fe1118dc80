"""Read the frames of one source in a thread, through a queue of limited length."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final

from pipelines.run.signals import interrupted_by
from tcam.errors import ConfigError, StreamError, VideoError
from tcam.types import Size
from tcam.video.live import LiveSource, LiveStream, open_live
from tcam.video.reader import DecodedFrame, stream_frames

ROOM: Final = 32
"""Maximum number of frames in the queue: four batches, 4.8 MB at 224 x 224."""
_LONGEST_WAIT_S: Final = 10.0
"""Longest wait between two attempts to reconnect."""
_DRIFT: Final = 1e-4
"""How much slower than ours a source's clock may run; without this, its frames would seem later every day."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Which frames to drop: ``latest`` keeps only the newest waiting frame, ``every`` keeps each N-th frame."""

    latest: bool = False
    every: int = 1

    @classmethod
    def parse(cls, text: str) -> Drop:
        """Parse the value of ``--drop``: ``latest``, ``none`` or ``every:N``.

        Raises:
            ConfigError: it has none of these forms.
        """
        if text in ("latest", "none"):
            return cls(latest=text == "latest")
        name, _, number = text.partition(":")
        if name != "every" or not number.isascii() or not number.isdigit() or int(number) < 1:
            raise ConfigError(f"--drop {text}: expected latest, none or every:N with N at least 1")
        return cls(every=int(number))


@dataclass(frozen=True, slots=True)
class Patience:
    """Timeouts of a live source in seconds, and how many attempts in a row are made to reconnect."""

    open_timeout_s: float = 10.0
    read_timeout_s: float = 10.0
    reconnects: int = 3


@dataclass(frozen=True, slots=True)
class FedFrame:
    """A frame, the ``time.monotonic`` at which it became available, and the number of frames dropped so far."""

    frame: DecodedFrame
    due_s: float
    dropped: int


class FrameFeed:
    """Reads a source in a thread; iterating yields its frames until it ends, is lost or a signal arrives.

    Iteration ends without an error, so that the frames already read can be finished; ``check`` then raises the error.

    Args:
        source: a video file, a frame folder, or a live source.
        size: (height, width) of the frames.
        drop: which frames to drop; None: ``latest`` for an endless source, otherwise none.
        keep_original: also keep every frame at its original size.
        patience: timeouts and reconnects of a live source.
        budget_s: longest time in seconds from when a live frame becomes available to its box. A frame that would miss
            it is dropped if a newer one is waiting. Where ``drop`` is None, the budget is used instead of ``latest``.
    """

    def __init__(
        self,
        source: Path | LiveSource,
        *,
        size: Size,
        drop: Drop | None = None,
        keep_original: bool = False,
        patience: Patience | None = None,
        budget_s: float | None = None,
    ) -> None:
        self.source, self.reconnected = source, 0
        self._size, self._keep_original, self._patience = size, keep_original, patience or Patience()
        self._chosen_drop, self._budget_s = drop, budget_s
        self._drop = drop or Drop()
        self._waiting: deque[FedFrame] = deque()
        self._changed = threading.Condition()
        self._dropped, self._late, self._ended, self._closed = 0, 0, False, False
        self._error: Exception | None = None
        self._clock = _Clock()
        self._thread = threading.Thread(target=self._run, name="frame feed", daemon=True)

    @property
    def latest(self) -> bool:
        """Whether only the newest frame waits for the network."""
        return self._drop.latest

    @property
    def dropped(self) -> int:
        """Number of frames dropped so far."""
        return self._dropped + self._late

    def __enter__(self) -> FrameFeed:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=1.0)  # a thread stuck in a read ends with the process

    def __iter__(self) -> Iterator[FedFrame]:
        work_s = 0.0
        while True:
            with self._changed:
                while not self._waiting and not self._ended and interrupted_by() is None:
                    self._changed.wait(0.1)
                if interrupted_by() is not None or not self._waiting:
                    return
                fed = self._waiting.popleft()
                while self._waiting and self._would_be_late(fed, work_s):
                    self._late, fed = self._late + 1, self._waiting.popleft()
                self._changed.notify_all()
            began_s = time.monotonic()
            yield replace(fed, dropped=fed.dropped + self._late)
            work_s = time.monotonic() - began_s  # until the caller asks for the next frame

    def check(self) -> None:
        """Raise the error that ended the source, if there was one.

        Raises:
            StreamError: a live source could not be reached, or was lost for good.
            VideoError: a file, camera or standard input cannot be read.
        """
        if self._error is not None and interrupted_by() is None:
            raise self._error

    def _would_be_late(self, fed: FedFrame, work_s: float) -> bool:
        if self._budget_s is None or not self._clock.live:
            return False
        return time.monotonic() + work_s > fed.due_s + self._budget_s

    def _run(self) -> None:
        try:
            if isinstance(self.source, LiveSource):
                self._read_live(self.source)
            else:
                for frame in stream_frames(self.source, size=self._size, keep_original=self._keep_original):
                    if not self._put(frame, time.monotonic()):
                        return
        except Exception as error:  # re-raised by check, in the caller's thread
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, frame: DecodedFrame, due_s: float) -> bool:
        """Queue a frame, waiting for room unless only the newest is kept; return False once the feed is closed."""
        with self._changed:
            if frame.index % self._drop.every:
                self._dropped += 1
                return not self._closed
            if self._drop.latest:
                self._dropped += len(self._waiting)
                self._waiting.clear()
            while len(self._waiting) >= ROOM and not self._closed:
                self._changed.wait()
            self._waiting.append(FedFrame(frame, due_s, self._dropped))
            self._changed.notify_all()
            return not self._closed

    def _read_live(self, source: LiveSource) -> None:
        patience, attempts = self._patience, 0
        while True:
            self._clock.heard, why = False, f"{source}: lost (it ended)"
            try:
                with open_live(
                    source, open_timeout_s=patience.open_timeout_s, read_timeout_s=patience.read_timeout_s
                ) as stream:
                    if not self._read_on(stream, again=attempts > 0) or not stream.endless:
                        return
            except (StreamError, VideoError) as error:
                if not self._clock.frames or not self._clock.live:
                    raise  # report a wrong address at once; a finite source cannot be resumed in the middle
                why = str(error)
            attempts = 0 if self._clock.heard else attempts
            if attempts >= patience.reconnects:
                raise StreamError(f"{why}; attempts to reach it again: {attempts}; start again when it is back")
            attempts += 1
            if self._closed_within(min(2.0 ** (attempts - 1), _LONGEST_WAIT_S)):
                return

    def _read_on(self, stream: LiveStream, *, again: bool) -> bool:
        """Queue the frames of an open source; return False once the feed is closed."""
        self._clock.restart(live=stream.endless)
        if self._chosen_drop is None:
            self._drop = Drop(latest=stream.endless and self._budget_s is None)
        for frame in stream.frames(size=self._size, keep_original=self._keep_original):
            if again:
                self.reconnected, again = self.reconnected + 1, False
            if not self._put(*self._clock.place(frame)):
                return False
        return True

    def _closed_within(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, timeout=seconds)


class _Clock:
    """Numbers the frames of a live source across reconnects, and computes when each became available.

    For a live source this is the source's own time, relative to the least delayed frame so far: a frame that waited in
    a socket or in the decoder is late although it has just arrived. For a finite source it is the time of arrival.
    """

    def __init__(self) -> None:
        self.frames, self.live, self.heard = 0, False, False
        self._began_s: float | None = None
        self._offset_s, self._zero_s, self._last_s = 0.0, float("inf"), float("-inf")

    def restart(self, *, live: bool) -> None:
        """Start a connection: the times of the source begin at 0 again."""
        now = time.monotonic()
        self.live, self._zero_s, self._last_s = live, float("inf"), float("-inf")
        self._offset_s = 0.0 if self._began_s is None else now - self._began_s

    def place(self, frame: DecodedFrame) -> tuple[DecodedFrame, float]:
        """Return a frame with its number and time in the whole stream, and when it became available."""
        now = time.monotonic()
        self._began_s = now if self._began_s is None else self._began_s
        if frame.time_s < self._last_s:
            self._zero_s = float("inf")  # the source set its clock back
        drift_s = max(0.0, frame.time_s - self._last_s) * _DRIFT if self._last_s > float("-inf") else 0.0
        self._last_s, self._zero_s = frame.time_s, min(self._zero_s + drift_s, now - frame.time_s)
        placed = replace(frame, index=self.frames, time_s=self._offset_s + frame.time_s)
        self.frames, self.heard = self.frames + 1, True
        return placed, self._zero_s + frame.time_s if self.live else now
