"""Write frames as an H.264 mp4 that every browser plays; the file appears whole or not at all."""

from __future__ import annotations

import errno
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

import numpy as np

from tcam.errors import DataError, TcamError
from tcam.files import cannot_write, publish, temporary_name
from tcam.types import Size
from tcam.video.container import open_container, reason, require_av
from tcam.video.pixels import Pixels

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_TICK: Final = Fraction(1, 1000)
"""Of the clock of a video whose frames have times of their own."""
_DRAWN: Final = "drawn by tcam"
_BT601: Final = 6
"""FFmpeg's number of the colour matrix that swscale uses to make yuv from RGB; players guess another one for HD."""


class VideoWriter:
    """Encode uint8 frames to ``path``, which appears (replacing an old one) only when the block ends without an error.

    Args:
        path: the mp4 file; its folder must exist.
        size: (height, width) of the frames given; odd sides are scaled down to even ones, as yuv420p asks.
        fps: frames per second of the result.
        intra: make every frame a key frame, so that reading any frame costs one frame.
        crf: quality, 0 (lossless) to 51.
        uneven: every frame is written with its own time; ``fps`` is then only what the encoder expects.
        drawn: note in the file that it shows results, so that a later run may replace it (``is_drawn``).

    Raises:
        ValueError: a size below 2 x 2, or fps not positive.
        DataError: the file cannot be written (no such folder, permission, full disk), or no frame was given.
        MissingPartError: PyAV is not installed.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: Size,
        fps: float | Fraction,
        intra: bool = False,
        crf: int = 20,
        uneven: bool = False,
        drawn: bool = False,
    ) -> None:
        if min(size) < 2:
            raise ValueError(f"size must be at least (2, 2), got {size}")
        if not 0 < fps < 100_000:
            raise ValueError(f"fps must be positive, got {fps}")
        require_av()
        self._path, self._size = Path(path), size
        self._temporary = temporary_name(self._path)
        self._rate = Fraction(fps).limit_denominator(1001)
        self._intra, self._crf, self._drawn = intra, crf, drawn
        self._num_frames, self._next_tick, self._uneven = 0, 0, uneven
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None

    def __enter__(self) -> VideoWriter:
        try:
            self._open()
        except OSError as error:
            self._discard()
            raise self._failure(error) from error
        return self

    def write(self, frame: Pixels, *, time_s: float = 0.0) -> None:
        """Append one frame, uint8 ``[3, H, W]`` RGB of the size given at the start; ``time_s`` counts where uneven.

        Raises:
            ValueError: another shape or dtype, or outside the ``with`` block.
            DataError: the disk refuses it.
        """
        import av

        if frame.dtype != np.uint8 or tuple(frame.shape) != (3, *self._size):
            raise ValueError(
                f"frame must be uint8 [3, {self._size[0]}, {self._size[1]}], got {frame.dtype} {list(frame.shape)}"
            )
        if self._container is None or self._stream is None:
            raise ValueError("write frames inside the with block of the VideoWriter")
        pixels = np.ascontiguousarray(frame.transpose(1, 2, 0))
        picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        picture = self._reformatter.reformat(
            picture, width=self._stream.width, height=self._stream.height, format="yuv420p", interpolation="BILINEAR"
        )
        tick = max(self._next_tick, round(time_s / _TICK)) if self._uneven else self._num_frames
        picture.pts, picture.time_base = tick, _TICK if self._uneven else 1 / self._rate
        self._num_frames, self._next_tick = self._num_frames + 1, tick + 1
        try:
            self._mux(picture)
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._close(keep=kind is None)
        finally:
            self._discard()

    def _open(self) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self._temporary.touch()  # gives a plain OSError where the folder is missing or locked
        self._reformatter = VideoReformatter()
        self._container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"})
        if self._drawn:
            self._container.metadata["comment"] = _DRAWN
        # One encoder thread: x264's bytes depend on the number of threads, and so on the machine.
        # No macroblock tree: with B-frames its bytes depend on what the memory held before (x264 of PyAV 18, measured).
        options = {"crf": str(self._crf), "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
        if self._intra:
            options |= {"g": "1", "bf": "0"}
        stream = self._container.add_stream("libx264", rate=self._rate, options=options)
        stream.width, stream.height = self._size[1] // 2 * 2, self._size[0] // 2 * 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = _BT601
        if self._uneven:
            stream.codec_context.time_base = _TICK
        self._stream = stream

    def _close(self, *, keep: bool) -> None:
        import av

        container = self._container
        if container is None:
            return
        try:
            if keep and self._num_frames:
                self._mux(None)
            self._container = self._stream = None
            container.close()
            if keep and self._num_frames:
                publish(self._temporary, self._path)
        except (av.error.FFmpegError, OSError) as error:
            if keep:
                raise self._failure(error) from error
        if keep and not self._num_frames:
            raise DataError(f"cannot write {self._path}: expected at least one frame, got none")

    def _mux(self, picture: VideoFrame | None) -> None:
        if self._container is None or self._stream is None:
            return
        for packet in self._stream.encode(picture):
            if self._uneven and self._num_frames > 1:  # how long the last one is shown; others until the next one
                packet.duration = max(1, (self._next_tick - 1) // (self._num_frames - 1))
            self._container.mux(packet)

    def _discard(self) -> None:
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    def _failure(self, error: BaseException) -> DataError:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return cannot_write(self._path, error)
        return DataError(f"cannot write {self._path} ({reason(error)}): check the folder, its permissions and the disk")


def is_drawn(path: Path) -> bool:
    """Whether a video file is one that a ``VideoWriter`` marked as drawn; False for one that cannot be read."""
    try:
        with open_container(path) as (container, _):
            return container.metadata.get("comment") == _DRAWN
    except TcamError:
        return False
