"""Videos kept as pictures: the images of a folder, numbered runs below it, or the pages of one file."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from tcam.errors import VideoError
from tcam.types import FrameRun, Size
from tcam.video.container import refuse
from tcam.video.pictures.image import IMAGE_SUFFIXES, PAGED_SUFFIXES, OpenImage, ValueRange, read_image, to_pixels
from tcam.video.pictures.order import FrameOrder, order_frames
from tcam.video.pixels import FOLDER_FPS, Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

_SAMPLED: Final = 64
"""Number of evenly spaced pictures from which the range of a clip's values is found."""
_UNLIKE: Final = 32
"""Mean difference of two pictures (of 255) above which they count as different."""
_NUMBERED: Final = re.compile(r"(.*?)(\d+)(\.[^.]+)", re.ASCII | re.DOTALL)


class FrameFiles:
    """The paths of the frames of some runs, created on access, so that a million frames need no memory.

    Args:
        folder: what the names of the runs are relative to.
        runs: in the order of the video.
    """

    def __init__(self, folder: Path, runs: Sequence[FrameRun]) -> None:
        self._folder, self._runs = folder, tuple(runs)
        self._stops = list(accumulate(run.count for run in self._runs))

    def __len__(self) -> int:
        return self._stops[-1] if self._stops else 0

    def __getitem__(self, index: int) -> Path:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        run = bisect_right(self._stops, index)
        start = self._stops[run] - self._runs[run].count
        return self._folder / self._runs[run].name(index - start)

    def __iter__(self) -> Iterator[Path]:
        return (self._folder / run.name(position) for run in self._runs for position in range(run.count))


class ImageSequence:
    """A video kept as pictures: the images of a folder, numbered runs below it, or the pages of one file.

    Args:
        path: the folder, or the file.
        runs: the image files below ``path`` that make the video; none: all images of the folder, in the order of
            their running number.

    Raises:
        VideoError: folder or file cannot be read, or it holds two kinds of pictures under the same names.
    """

    def __init__(self, path: Path, runs: Sequence[FrameRun] = ()) -> None:
        self.path = Path(path)
        self.order = None if runs or not self.path.is_dir() else order_frames(_list_images(self.path))
        self._file = None if self.path.is_dir() else OpenImage(self.path)
        self._files: Sequence[Path] | FrameFiles = FrameFiles(self.path, runs)
        if self.order is not None:
            self._files = [self.path / name for name in self.order.names]
            _refuse_other_pictures(self.path, self.order)
        shown_s = None if self._file is None else self._file.seconds_per_page
        self.fps = FOLDER_FPS if shown_s is None else 1 / shown_s

    def __enter__(self) -> ImageSequence:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._files) if self._file is None else len(self._file.pages)

    def name(self, index: int) -> str:
        """Name the file of a frame."""
        return self.path.name if self._file is not None else self._files[index].name

    def picture(self, index: int) -> Image:
        """Decode a frame as 8-bit RGB; deeper pictures are scaled alike in all frames (``values``).

        Raises:
            VideoError: it cannot be read.
        """
        with self._opened(index) as (image, page):
            return image.picture(page, values=self.values if image.is_deep(page) else None)

    def read(self, index: int, size: Size) -> Pixels:
        """Read a frame as uint8 ``[3, h, w]`` RGB of one size.

        Raises:
            VideoError: it cannot be read.
        """
        return to_pixels(self.picture(index), size)

    def stored_size(self, index: int) -> Size | None:
        """Return the (height, width) that the head of a file names, before any turn.

        Raises:
            VideoError: it cannot be read.
        """
        with self._opened(index) as (image, _):
            return image.stored_size

    @cached_property
    def values(self) -> ValueRange | None:
        """The range of values that all frames of more than 8 bits share, by some of them; None where all have 8 bits.

        Pictures that cannot be read are left out.
        """
        count = min(len(self), _SAMPLED)
        extents = []
        for index in sorted({i * (len(self) - 1) // max(count - 1, 1) for i in range(count)}):
            with suppress(VideoError), self._opened(index) as (image, page):
                extent = image.extent(page)
                extents += [] if extent is None else [extent]
        return ValueRange.of_extents(extents) if extents else None

    def notes(self) -> tuple[str, ...]:
        """Return notes for the user on how the pictures are read (order, depth), one line each."""
        found = [] if self.order is None or self.order.note is None else [self.order.note]
        if len(self) and self._is_deep(0) and self.values is not None:
            low, high = self.values.low, self.values.high
            found.append(f"pictures of more than 8 bits: {low:g} becomes black, {high:g} white, in all frames")
        return tuple(found)

    def close(self) -> None:
        """Close the file of pages."""
        if self._file is not None:
            self._file.close()

    def _is_deep(self, index: int) -> bool:
        with suppress(VideoError), self._opened(index) as (image, page):
            return image.is_deep(page)
        return False

    @contextmanager
    def _opened(self, index: int) -> Iterator[tuple[OpenImage, int]]:
        if self._file is not None:
            yield self._file, self._file.pages[index]
            return
        with OpenImage(self._files[index]) as image:
            yield image, 0


def _refuse_other_pictures(folder: Path, order: FrameOrder) -> None:
    """Refuse frames with two different pictures of the same name, such as photographs and masks."""
    if not order.doubles:
        return
    double = order.doubles[0]
    kept = next(name for name in order.names if Path(name).stem.casefold() == Path(double).stem.casefold())
    one, other = (read_image(folder / name, (32, 32)).astype(int) for name in (kept, double))
    if abs(one - other).mean() > _UNLIKE:
        refuse(folder, f"{kept} and {double} are two different pictures", remedy="give each kind a folder of its own")


def is_image_sequence(path: Path) -> bool:
    """Whether a video is kept as pictures (by its name): a folder, or a file of one or several pictures."""
    return path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES


def holds_pages(path: Path) -> bool:
    """Whether a picture file holds several frames; False for one that cannot be read."""
    if path.suffix.lower() not in PAGED_SUFFIXES:
        return False
    try:
        with OpenImage(path) as image:
            return len(image.pages) > 1
    except VideoError:
        return False


def list_frame_files(folder: Path) -> list[Path]:
    """List the frames of a folder of images, in the order of their running number, each once.

    Raises:
        VideoError: the folder cannot be read.
    """
    return [folder / name for name in order_frames(_list_images(folder)).names]


def _list_images(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as children:
            return [c.name for c in children if Path(c.name).suffix.lower() in IMAGE_SUFFIXES and c.name[0] != "."]
    except OSError as error:
        refuse(folder, f"cannot be read ({error.strerror})", remedy="check its permissions")


def number_runs(names: Iterable[str], *, folder: str = "") -> tuple[FrameRun, ...]:
    """Return the names of numbered files as runs, in order of their numbers; a gap starts a new run.

    Args:
        names: names such as ``frame0001.jpg``; other files are left out.
        folder: prefix of every name, such as ``052/``.
    """
    found = []
    for name in names:
        parts = _NUMBERED.fullmatch(name)
        if parts is not None and parts[3].lower() in IMAGE_SUFFIXES and name[0] != ".":
            found.append((int(parts[2]), len(parts[2]), parts[1], parts[3], folder + name))
    runs: list[FrameRun] = []
    for number, digits, prefix, suffix, name in sorted(found):
        if runs and runs[-1].name(runs[-1].count) == name:
            runs[-1] = replace(runs[-1], count=runs[-1].count + 1)
        else:
            runs.append(FrameRun(folder + prefix, digits, suffix, number, 1))
    return tuple(runs)
