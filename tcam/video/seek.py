"""Random access with PyAV: seek to a key frame, decode up to the requested frame, and verify every seek."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import dropwhile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from tcam.types import Size
from tcam.video.container import decode_in_order, naming_faults, open_container, read_packets, refuse
from tcam.video.pixels import FrameScaler, Orientation, Pixels

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_READ_ON: Final = 8
"""Up to this many frames ahead, decoding is cheaper than a seek."""


class SeekingReader:
    """Frames of one file by index, equal to those of decoding in order.

    The presentation times of all packets give the time of frame ``i``. Where they do not (missing or repeated times,
    hidden or damaged frames), or once a seek has landed elsewhere, the file is decoded from its start: slow and right.

    Args:
        path: the video file.
        num_frames: decodable frames.
        size: (height, width) of the frames returned, display orientation.
    """

    def __init__(self, path: Path, *, num_frames: int, size: Size) -> None:
        self._path, self._num_frames, self._size = path, num_frames, size
        self._times, self._keys = _index_frames(path)
        if len(self._times) != num_frames:
            self._times, self._keys = [], []
        self._scale, self._orientation = FrameScaler(), Orientation()
        self._oriented = False
        self._open_files = ExitStack()
        self._frames: Iterator[VideoFrame] = iter(())
        self._next = 0
        self._restart()

    def read(self, indices: Sequence[int]) -> Pixels:
        """Read frames of ascending, distinct indices: uint8 ``[T, 3, h, w]``.

        Raises:
            VideoError: the file ends before the last of them, or cannot be decoded or scaled.
        """
        with naming_faults(self._path):
            return np.stack([self._scaled(self._decode(index)) for index in indices])

    @property
    def exact(self) -> bool:
        """Whether every frame so far came at the time that its packet promised."""
        return bool(self._times)

    def time_s(self, index: int) -> float:
        """Return the time of a frame, in seconds after the first one; the reader must be exact."""
        base = self._stream.time_base or 0
        return float(self._times[index] * base) - float(self._times[0] * base)

    def display_size(self) -> Size:
        """Return (height, width) of the first frame in display orientation."""
        with naming_faults(self._path):
            first = self._decode(0)
            return Orientation.of_frame(first).size((first.height, first.width))

    def close(self) -> None:
        """Close the file."""
        self._open_files.close()

    def _decode(self, index: int) -> VideoFrame:
        if self._times:
            self._approach(index)
            frame = self._read_on_to(index)
            if frame is not None:
                return frame
            self._times = []
            self._restart()
        if index < self._next:
            self._restart()
        frame = self._read_on_to(index)
        if frame is None:
            refuse(self._path, f"frame {index} of {self._num_frames} is missing", remedy="prepare the videos again")
        return frame

    def _approach(self, index: int) -> None:
        """Bring the decoder to a frame not after ``index``, unless it is there already."""
        found = bisect_right(self._keys, index) - 1
        if len(self._keys) < self._num_frames:
            found -= 1  # one key frame early: after an open group of pictures the last one leans on frames before it
        key = self._keys[found] if found >= 0 else 0
        if key <= self._next <= index or self._next <= index < self._next + _READ_ON:
            return
        if key == 0:
            self._restart()
            return
        start = self._times[key]
        self._container.seek(start, stream=self._stream)
        frames = decode_in_order(self._container, self._stream, on_error=[])
        self._frames = dropwhile(lambda frame: frame.pts is not None and frame.pts < start, frames)
        self._next = key

    def _read_on_to(self, index: int) -> VideoFrame | None:
        """Decode on to a frame; None when the file ends or a frame comes that does not belong there."""
        for frame in self._frames:
            self._next += 1
            if self._times and frame.pts != self._times[self._next - 1]:
                return None
            if self._next == index + 1:
                return frame
        return None

    def _restart(self) -> None:
        self._open_files.close()
        self._container, self._stream = self._open_files.enter_context(open_container(self._path))
        self._frames = decode_in_order(self._container, self._stream, on_error=[])
        self._next = 0

    def _scaled(self, frame: VideoFrame) -> Pixels:
        if not self._oriented:
            self._orientation, self._oriented = Orientation.of_frame(frame), True
        return self._scale(frame, self._size, self._orientation)


def count_by_packets(path: Path) -> int:
    """Return the number of frames of a file from its packets only; 0 if they leave doubt.

    Raises:
        VideoError: it is no video that may be read.
    """
    return len(_index_frames(path)[0])


def _index_frames(path: Path) -> tuple[list[int], list[int]]:
    """Return the presentation time of every frame and which frames are key frames; nothing where they are unsure."""
    errors: list[str] = []
    found: dict[int, bool] = {}
    shown = 0
    with open_container(path) as (container, stream):
        for packet in read_packets(container, stream, on_error=errors):
            if packet is not None and packet.size and not packet.is_discard:
                shown += 1
                if packet.pts is not None:
                    found[packet.pts] = packet.is_keyframe
    if errors or len(found) != shown:
        return [], []
    times = sorted(found)
    return times, [index for index, time in enumerate(times) if found[time]]
