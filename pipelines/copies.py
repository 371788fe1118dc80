"""Videos of one content: under two tags they contradict each other, in two splits they leak."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pipelines.files import hash_content
from tcam.errors import VideoError
from tcam.video.folders import FolderEntry
from tcam.video.frame_files import list_frame_files


def find_copies(entries: Sequence[FolderEntry]) -> Iterator[tuple[str, str]]:
    """Name every video that has the content of an earlier one, and how the two differ; files of equal size are read."""
    for alike in _groups(entries, _size):
        for first, *others in _groups(alike, _content):
            for other in others:
                yield other.video_id, _describe(first, other)


def _groups(entries: Sequence[FolderEntry], key: Callable[[Path], Hashable]) -> Iterator[list[FolderEntry]]:
    """Give the entries that share what ``key`` makes of their path, where there are several."""
    found: defaultdict[Hashable, list[FolderEntry]] = defaultdict(list)
    for entry in entries:
        with suppress(OSError, VideoError):
            found[key(entry.path)].append(entry)
    return (group for group in found.values() if len(group) > 1)


def _size(path: Path) -> Hashable:
    if not path.is_dir():
        return path.stat().st_size
    return tuple(sorted(file.stat().st_size for file in list_frame_files(path)))


def _content(path: Path) -> str:
    return hash_content(path)


def _describe(first: FolderEntry, other: FolderEntry) -> str:
    differ = []
    if first.class_name != other.class_name:
        differ.append(f"tagged {other.class_name!r} here and {first.class_name!r} there")
    if first.split != other.split:
        differ.append(f"in the {other.split} split here and in {first.split} there")
    remedy = "; keep one of them" if differ else ""
    return f"has the same content as {first.video_id}{', ' if differ else ''}{' and '.join(differ)}{remedy}"
