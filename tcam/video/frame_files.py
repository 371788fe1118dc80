"""The image files of a video: those of one folder, or numbered runs below it; nothing is copied or listed twice."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Final

from tcam.types import FrameRun
from tcam.video.container import refuse
from tcam.video.pixels import IMAGE_SUFFIXES

_NUMBERED: Final = re.compile(r"(.*?)(\d+)(\.[^.]+)", re.ASCII | re.DOTALL)


class FrameFiles:
    """The paths of the frames of some runs, made when they are asked for: a million frames cost no memory.

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


def find_frame_files(path: Path, runs: Sequence[FrameRun]) -> FrameFiles | list[Path]:
    """Give the image files of a video: its runs, or else all images that lie in its folder.

    Raises:
        VideoError: the folder cannot be read.
    """
    return FrameFiles(path, runs) if runs else list_frame_files(path)


def list_frame_files(folder: Path) -> list[Path]:
    """List the images of a frame folder in order of the number in their names (``frame0001.jpg``, ``00000001.jpg``).

    Raises:
        VideoError: the folder cannot be read.
    """
    try:
        files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    except OSError as error:
        refuse(folder, f"cannot be read ({error.strerror})", remedy="check its permissions")
    return sorted(files, key=_frame_order)


def _frame_order(path: Path) -> tuple[int, str]:
    digits = "".join(c if c.isascii() and c.isdigit() else " " for c in path.stem).split()
    return (int(digits[-1]) if digits else -1, path.name)


def number_runs(names: Iterable[str], *, folder: str = "") -> tuple[FrameRun, ...]:
    """Write names of numbered files as few runs, in order of their numbers; a gap begins a new run.

    Args:
        names: such as ``frame0001.jpg``; what ends in no number, or is no image, is left out.
        folder: what stands before each name, such as ``052/``.
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
