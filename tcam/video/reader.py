"""Read the frames of one video: in order with constant memory (PyAV), or by index.

By index, decord reads the copies that ``prepare`` wrote, and PyAV everything else.
Frame ``i`` is the ``i``-th decodable frame in presentation order, whichever way it is read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from tcam.errors import VideoError
from tcam.types import Decoder, FrameRun, Size
from tcam.video.container import decode_in_order, frame_time, open_container, reason, refuse
from tcam.video.frame_files import ImageSequence, is_image_sequence
from tcam.video.pictures.image import to_pixels
from tcam.video.pixels import FOLDER_FPS, FrameScaler, Orientation, Pixels
from tcam.video.seek import SeekingReader, count_by_packets

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from decord import VideoReader

_DECORD_MIN_WIDTH: Final = 32
"""decord pads the rows of narrower frames wrongly."""


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """One frame: uint8 ``[3, h, w]`` RGB at the requested size and, on request, ``[3, H, W]`` at its own size.

    ``time_s`` counts from the first frame; ``original_size`` is (H, W), known even if the pixels are not kept.
    """

    index: int
    time_s: float
    pixels: Pixels
    original: Pixels | None
    original_size: Size


def stream_frames(
    path: Path,
    *,
    size: Size | None = None,
    keep_original: bool = False,
    only: Collection[int] | None = None,
    runs: Sequence[FrameRun] = (),
) -> Iterator[DecodedFrame]:
    """Return the frames of a video file or a frame folder in presentation order, in display orientation.

    Damaged parts are skipped. Memory does not grow with the length of the video.

    Args:
        path: a video file, a folder of numbered images, or a file of one or several pictures.
        size: (height, width) of ``pixels``; None keeps the size of the first frame.
        keep_original: also return every frame at the video's own size (of pictures: at that of each).
        only: indices of the frames to return; other images of a folder are not decoded, a file is read up to the last.
        runs: the image files below ``path`` that make the video; none: all images of the folder.

    Raises:
        VideoError: nothing in it can be decoded.
        MissingPartError: PyAV is not installed (a frame folder does without).
    """
    _check_size(size)
    path = Path(path)
    if is_image_sequence(path):
        frames = _stream_sequence(path, runs, size, keep_original, only)
    else:
        frames = _stream_file(path, size, keep_original)
    last = math.inf if only is None else max(only, default=-1)
    found = False
    with closing(frames):
        for frame in frames:
            found = True
            if only is None or frame.index in only:
                yield frame
            if frame.index >= last:
                break
    if not found and last >= 0:
        refuse(path, "no frame of it can be decoded")


class RangeStream:
    """The frames of parts of one long video as ``stream_frames`` gives them, reached by a seek.

    Args:
        path: a file whose frames can be counted by packets, or a frame folder.
        num_frames: that count.
        size: (height, width) of the frames.
    """

    def __init__(self, path: Path, *, num_frames: int, size: Size) -> None:
        self.path, self._size = Path(path), size
        self._reader: ImageSequence | SeekingReader
        if is_image_sequence(self.path):
            self._reader, self._native = ImageSequence(self.path), (0, 0)
        else:
            self._reader = SeekingReader(self.path, num_frames=num_frames, size=size)
            self._native = self._reader.display_size()

    def read(self, frames: range) -> Iterator[DecodedFrame]:
        """Return the frames of a range.

        Raises:
            VideoError: the video is damaged, so its frames can only be counted by reading it in order.
        """
        if isinstance(self._reader, ImageSequence):
            yield from _stream_images(self._reader, self._size, False, frames)
            return
        for index in frames:
            pixels = self._reader.read([index])[0]
            if not self._reader.exact:
                refuse(self.path, "it is damaged: its frames must be read in order", remedy="read it as a whole")
            yield DecodedFrame(index, self._reader.time_s(index), pixels, None, self._native)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def count_frames(path: Path) -> int:
    """Return the number of frames of a file by its packets, or of images in a folder; 0 if a file's is uncertain.

    Raises:
        VideoError: it is no video that may be read.
    """
    if is_image_sequence(Path(path)):
        with ImageSequence(path) as images:
            return len(images)
    return count_by_packets(path)


def _stream_sequence(
    path: Path, runs: Sequence[FrameRun], size: Size | None, keep_original: bool, only: Collection[int] | None
) -> Generator[DecodedFrame]:
    with ImageSequence(path, runs) as images:
        yield from _stream_images(images, size, keep_original, only)


def _stream_images(
    images: ImageSequence, size: Size | None, keep_original: bool, only: Collection[int] | None
) -> Generator[DecodedFrame]:
    """Read pictures in order; each has its own original size, which is that of most but not of all frame folders."""
    for index in range(len(images)) if only is None else sorted(i for i in only if i < len(images)):
        picture = images.picture(index)
        size = size or (picture.height, picture.width)
        pixels = to_pixels(picture, size)
        native = (picture.height, picture.width)
        original = None if not keep_original else pixels if size == native else to_pixels(picture)
        yield DecodedFrame(index, index / images.fps, pixels, original, native)


def _stream_file(path: Path, size: Size | None, keep_original: bool) -> Generator[DecodedFrame]:
    with open_container(path) as (container, stream):
        decoded = decode_in_order(container, stream, on_error=[])
        yield from scale_frames(decoded, stream, size=size, keep_original=keep_original)


def scale_frames(
    decoded: Iterator[VideoFrame], stream: VideoStream, *, size: Size | None, keep_original: bool
) -> Iterator[DecodedFrame]:
    """Convert decoded frames to those that ``stream_frames`` yields."""
    scale, orientation = FrameScaler(), Orientation()
    native, start, time = (0, 0), 0.0, 0.0
    step = 1 / float(stream.average_rate or stream.guessed_rate or FOLDER_FPS)
    for index, frame in enumerate(decoded):
        shown_at = frame_time(frame, stream)
        if index == 0:
            orientation = Orientation.of_frame(frame)
            native, start = orientation.size((frame.height, frame.width)), shown_at or 0.0
        else:
            time = time + step if shown_at is None else shown_at - start
        pixels = scale(frame, size or native, orientation)
        if not keep_original:
            yield DecodedFrame(index, time, pixels, None, native)
        else:
            original = pixels if size in (None, native) else scale(frame, native, orientation)
            yield DecodedFrame(index, time, pixels, original, native)


class _Backend(Protocol):
    def read(self, indices: Sequence[int]) -> Pixels: ...

    def close(self) -> None: ...


class ClipReader:
    """Reads frames of one video by index; they are exactly those of reading in order.

    It opens the file at the first read, in the process that reads: a copy sent to a DataLoader worker opens its own.

    Args:
        path: the video file or frame folder.
        decoder: ``decord`` is safe for copies that ``prepare`` wrote, and becomes PyAV where it is not installed.
        num_frames: decodable frames, as probed.
        size: (height, width) of the frames returned, display orientation.
        runs: the image files below ``path`` that make the video; none: all images of the folder.
    """

    def __init__(
        self,
        path: Path,
        *,
        decoder: Decoder,
        num_frames: int,
        size: Size,
        runs: Sequence[FrameRun] = (),
    ) -> None:
        if num_frames < 1:
            raise ValueError(f"expected num_frames >= 1, got {num_frames}")
        _check_size(size)
        self._path, self._decoder, self._num_frames = Path(path), decoder, num_frames
        self._size, self._runs = size, tuple(runs)
        self._backend: _Backend | None = None
        self._owner = os.getpid()

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_backend": None}

    def read(self, indices: Sequence[int]) -> Pixels:
        """Read frames in the order asked for; an index may come several times.

        Returns:
            uint8 ``[T, 3, h, w]``, RGB.

        Raises:
            ValueError: an index outside ``0 .. num_frames - 1``.
            VideoError: the file has changed or cannot be read.
            MissingPartError: neither decord nor PyAV is installed.
        """
        wanted = [int(index) for index in indices]
        outside = [index for index in wanted if not 0 <= index < self._num_frames]
        if outside:
            raise ValueError(
                f"frame indices must be in 0..{self._num_frames - 1}, got {outside[0]} ({self._path.name})"
            )
        if not wanted:
            return np.empty((0, 3, *self._size), np.uint8)
        if self._owner != os.getpid():  # decoders do not survive a fork: leave the parent's alone
            self._backend, self._owner = None, os.getpid()
        unique = sorted(set(wanted))
        frames = self._read_ascending(unique)
        if unique == wanted:
            return frames
        position = {index: row for row, index in enumerate(unique)}
        return frames[[position[index] for index in wanted]]

    def _read_ascending(self, indices: Sequence[int]) -> Pixels:
        try:
            if self._backend is None:
                self._backend = self._open()
            return self._backend.read(indices)
        except VideoError:
            if self._decoder != "decord":
                raise
        # decord gives up near the end of some files, more so on a busy machine; PyAV gives the same pixels.
        self.close()
        self._decoder = "pyav"
        self._backend = self._open()
        return self._backend.read(indices)

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        if self._backend is not None and self._owner == os.getpid():
            self._backend.close()
        self._backend = None

    def _open(self) -> _Backend:
        if self._decoder == "frames":
            return _ImageBackend(self._path, self._runs, num_frames=self._num_frames, size=self._size)
        if self._decoder == "decord" and self._size[1] >= _DECORD_MIN_WIDTH and has_decord():
            return DecordReader(self._path, num_frames=self._num_frames, size=self._size)
        return SeekingReader(self._path, num_frames=self._num_frames, size=self._size)


def has_decord() -> bool:
    """Whether decord can be imported; it does not have wheels for every platform."""
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "128")
    try:
        import decord  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


class DecordReader:
    """Random access by decord, scaled inside the decoder, one thread.

    Raises:
        VideoError: decord cannot open the file, or counts its frames otherwise.
    """

    def __init__(self, path: Path, *, num_frames: int, size: Size) -> None:
        import decord

        self._path = path
        try:
            self._reader: VideoReader = decord.VideoReader(
                str(path), ctx=decord.cpu(0), width=size[1], height=size[0], num_threads=1
            )
        except (decord.DECORDError, RuntimeError, OSError) as error:
            refuse(path, f"decord cannot open it ({reason(error).splitlines()[0]})", remedy="prepare the videos again")
        if len(self._reader) != num_frames:
            refuse(path, f"expected {num_frames} frames, found {len(self._reader)}", remedy="prepare the videos again")

    def read(self, indices: Sequence[int]) -> Pixels:
        """Read frames of ascending, distinct indices: uint8 ``[T, 3, h, w]``.

        Raises:
            VideoError: decord fails on the way.
        """
        import decord

        try:
            frames = self._reader.get_batch(list(indices)).asnumpy()
            # Without this the idle decoder goes on decoding ahead, a gigabyte within seconds (dmlc/decord #157).
            self._reader.seek(0)
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            refuse(self._path, f"decord failed ({reason(error).splitlines()[0]})", remedy="prepare the videos again")
        return np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.uint8)

    def close(self) -> None:
        """Free the decoder."""
        del self._reader


class _ImageBackend:
    """Random access to pictures."""

    def __init__(self, path: Path, runs: Sequence[FrameRun], *, num_frames: int, size: Size) -> None:
        self._images, self._size = ImageSequence(path, runs), size
        if len(self._images) != num_frames:
            refuse(path, f"expected {num_frames} frames, found {len(self._images)}", remedy="prepare the videos again")

    def read(self, indices: Sequence[int]) -> Pixels:
        """Read the images of some indices: uint8 ``[T, 3, h, w]``."""
        return np.stack([self._images.read(index, self._size) for index in indices])

    def close(self) -> None:
        """Close a file of pages; of a folder nothing is open between two reads."""
        self._images.close()


def _check_size(size: Size | None) -> None:
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size must be (height, width), both at least 1, got {size}")
