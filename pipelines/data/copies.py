"""Videos with the same content: under two tags they contradict each other, in two splits they leak."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pipelines.run.files import hash_content
from tcam.errors import VideoError
from tcam.video.data_folder.scan import FolderEntry
from tcam.video.frame_files import list_frame_files

Copies = Sequence[Sequence[FolderEntry]]
"""Groups of videos with the same content; each lists the original first, then its copies."""


def find_copies(entries: Sequence[FolderEntry]) -> Copies:
    """Group videos with the same content; only files that share their size with another are read."""
    return [group for alike in _groups(entries, _size) for group in _groups(alike, hash_content)]


def without_copies(entries: Sequence[FolderEntry], copies: Copies) -> tuple[FolderEntry, ...]:
    """Leave out copies of a video of the same class whose split is not assigned yet."""
    leaders = _leaders(copies)
    return tuple(entry for entry in entries if entry.split is not None or entry.video_id not in leaders)


def with_copies(
    entries: Sequence[FolderEntry], drawn: Sequence[FolderEntry], copies: Copies
) -> tuple[FolderEntry, ...]:
    """Return all videos with their splits from ``drawn``; a copy gets the split of its original, so that none leaks."""
    leaders, splits = _leaders(copies), {entry.video_id: entry.split for entry in drawn}
    return tuple(
        replace(entry, split=splits[entry.video_id if entry.video_id in splits else leaders[entry.video_id]])
        for entry in entries
    )


def _leaders(copies: Copies) -> dict[str, str]:
    """Map every copy of a video of the same class to the id of that video."""
    leaders = {}
    for group in copies:
        first: dict[str, str] = {}
        for entry in group:
            leader = first.setdefault(entry.class_name, entry.video_id)
            leaders.update({} if leader == entry.video_id else {entry.video_id: leader})
    return leaders


def describe_copies(entries: Sequence[FolderEntry], copies: Copies) -> Iterator[tuple[str, str]]:
    """Yield for every copy its video id, and a line that names the original and how the two differ."""
    known = {entry.video_id: entry for entry in entries}
    for first, *others in copies:
        for other in others:
            yield other.video_id, _describe(known[first.video_id], known[other.video_id])


def _groups(entries: Sequence[FolderEntry], key: Callable[[Path], Hashable]) -> Iterator[list[FolderEntry]]:
    """Group the entries whose paths have the same ``key``; groups of one are left out."""
    found: defaultdict[Hashable, list[FolderEntry]] = defaultdict(list)
    for entry in entries:
        with suppress(OSError, VideoError):
            found[key(entry.path)].append(entry)
    return (group for group in found.values() if len(group) > 1)


def _size(path: Path) -> Hashable:
    if not path.is_dir():
        return path.stat().st_size
    return tuple(sorted(file.stat().st_size for file in list_frame_files(path)))


def _describe(first: FolderEntry, other: FolderEntry) -> str:
    differ = []
    if first.class_name != other.class_name:
        differ.append(f"tagged {other.class_name!r} here and {first.class_name!r} there")
    if first.split != other.split:
        differ.append(f"in the {other.split} split here and in {first.split} there")
    remedy = "; keep one of them" if differ else ""
    return f"has the same content as {first.video_id}{', ' if differ else ''}{' and '.join(differ)}{remedy}"
