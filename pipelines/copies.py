"""Videos of one content: under two tags they contradict each other, in two splits they leak."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pipelines.files import hash_content
from tcam.errors import VideoError
from tcam.video.folders import FolderEntry
from tcam.video.frame_files import list_frame_files


def find_copies(entries: Sequence[FolderEntry]) -> dict[str, str]:
    """Return the ids of videos that have the content of an earlier one, each with the id of that one.

    Only files whose size another one has are read.
    """
    same = [group for alike in _groups(entries, _size) for group in _groups(alike, _content)]
    return {other.video_id: first.video_id for first, *others in same for other in others}


def keep_together(
    entries: Sequence[FolderEntry], given: Sequence[FolderEntry], copies: Mapping[str, str]
) -> tuple[FolderEntry, ...]:
    """Give copies whose split was drawn that of their first: no draw lets a test video into the training.

    Args:
        entries: with all splits.
        given: the same, with those that somebody chose.
        copies: see ``find_copies``.
    """
    splits = {entry.video_id: entry.split for entry in entries}
    drawn = {entry.video_id for entry in given if entry.split is None} & copies.keys()
    return tuple(
        replace(entry, split=splits[copies[entry.video_id]]) if entry.video_id in drawn else entry for entry in entries
    )


def describe_copies(entries: Sequence[FolderEntry], copies: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Say of every copy which video it repeats, and how the two differ: pairs of video id and a line."""
    known = {entry.video_id: entry for entry in entries}
    for other, first in copies.items():
        yield other, _describe(known[first], known[other])


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
