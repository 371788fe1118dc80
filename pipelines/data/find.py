"""Find the videos of ``--source``: files, frame folders, folders of videos, globs, addresses, or a list of those."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipelines.data.failures import VideoFailure
from tcam.errors import DataError
from tcam.video.data_folder.find import MASKS, PassedOver, find_videos
from tcam.video.live import LiveSource

_LIST_SUFFIXES: Final = (".txt", ".lst")
_EXPECTED: Final = "expected a video file, a folder of videos or a glob"


@dataclass(frozen=True, slots=True)
class Source:
    """A video to predict: a file, a frame folder, or (``live``) an address; ``overlay`` is the video to draw."""

    video_id: str
    path: Path
    live: LiveSource | None = None
    overlay: Path | None = None

    def __str__(self) -> str:
        return self.video_id

    @property
    def output_name(self) -> str:
        """Name of its output files, without their ending; a ``/`` in it means a subfolder of the output."""
        return self.video_id if self.live is None else re.sub(r"[^\w.-]+", "_", self.video_id)


@dataclass(frozen=True, slots=True)
class FoundSources:
    """The videos that ``--source`` names.

    ``missing`` are the lines of a list that match nothing, ``passed`` the files of folders that are not videos, and
    ``folders`` those that were searched for videos.
    """

    sources: tuple[Source, ...]
    missing: tuple[VideoFailure, ...] = ()
    passed: tuple[PassedOver, ...] = ()
    folders: tuple[Path, ...] = ()


def find_sources(source: str) -> FoundSources:
    """Find the videos that ``--source`` names.

    Args:
        source: a file, a frame folder, a folder of videos, a glob, an address such as ``http://host/a.mp4``, or a text
            file (.txt, .lst) with one of these per line. Names are relative to the folder of the list or the working
            directory; lines that begin with # are ignored.

    Raises:
        DataError: there is no such file, or no video in the folder.
    """
    path = Path(source)
    if path.suffix.lower() in _LIST_SUFFIXES and path.is_file():
        return _read_list(path)
    found = _find(source)
    if not found.sources:
        what = "a folder without videos" if path.is_dir() else "no such file or match"
        if path.is_dir() and found.passed:
            what += f" ({'; '.join(map(str, found.passed[:3]))})"
        raise DataError(f"--source {source}: {_EXPECTED}, found {what}")
    return found


def find_files(source: str) -> list[Path]:
    """Find the files and frame folders that ``--source`` names; addresses are refused.

    Raises:
        DataError: it names an address, there is no such file, or no video in the folder.
    """
    found = find_sources(source)
    live = [item.video_id for item in found.sources if item.live is not None]
    if live:
        raise DataError(f"--source {source}: {_EXPECTED}, found the address {live[0]}")
    if found.missing:
        raise DataError(f"--source {source}: {found.missing[0].reason}")
    return [item.path for item in found.sources]


def _find(source: str) -> FoundSources:
    live = LiveSource.parse(source)
    path = Path(source)
    if live is not None and live.kind == "network":
        return FoundSources((Source(str(live), Path(source), live),))
    if path.is_dir():
        found = find_videos(path)
        masks = path / MASKS
        paths = [item for item in found.paths if not item.is_relative_to(masks)] or list(found.paths)
        if paths == [path]:
            return FoundSources((Source(path.resolve().name, path),), passed=found.passed)
        ids = [item.relative_to(path).as_posix() for item in paths]
        return FoundSources(tuple(map(Source, ids, paths)), passed=found.passed, folders=(path,))
    if path.exists():
        return FoundSources((Source(path.name, path),))
    matches = map(Path, sorted(glob.glob(source, recursive=True)))  # noqa: PTH207 (Path.glob takes no absolute one)
    return _named_apart([FoundSources(tuple(_match(match))) for match in matches])


def _match(path: Path) -> Iterator[Source]:
    """Yield a match of a glob if it is a video or a frame folder, not a folder of videos or a file beside them."""
    if find_videos(path).paths == (path,) if path.is_dir() else path.suffix.lower() not in _BESIDE:
        yield Source(path.name, path)


_BESIDE: Final = frozenset({".csv", ".json", ".jsonl", ".parquet", ".txt", ".md", ".html", ".yaml"})
"""Endings of files that a glob may match beside videos, but that are not videos."""


def _read_list(path: Path) -> FoundSources:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--source {path}: expected a text file with one video a line ({error})") from None
    found, missing = [], []
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        names = [name] if LiveSource.parse(name) is not None else [str(path.parent / name), name]
        item = next((item for item in map(_find, names) if item.sources), None)
        if item is not None:
            found.append(item)
        else:
            missing.append(VideoFailure(name, f"{path}, line {number}: {_EXPECTED}, found no such file or match"))
    if not found:
        raise DataError(f"--source {path}: {missing[0].reason}" if missing else f"--source {path}: the list is empty")
    together = _named_apart(found)
    return FoundSources(together.sources, tuple(missing), together.passed, together.folders)


def _named_apart(found: Sequence[FoundSources]) -> FoundSources:
    """Merge sources without duplicates, named by their paths below the folder that they share."""
    files = {os.path.realpath(s.path): s for item in found for s in item.sources if s.live is None}
    live = {s.video_id: s for item in found for s in item.sources if s.live is not None}
    places = [s.path.absolute() for s in files.values()]
    shared = os.path.commonpath([place.parent for place in places]) if places else ""  # a/1.mp4 and b/1.mp4 differ
    ids = [place.relative_to(shared).as_posix() for place in places]
    named = [Source(video_id, s.path) for video_id, s in zip(ids, files.values(), strict=True)]
    return FoundSources(
        (*named, *live.values()),
        passed=tuple(group for item in found for group in item.passed),
        folders=tuple(folder for item in found for folder in item.folders),
    )
