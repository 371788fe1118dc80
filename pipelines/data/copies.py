"""Videos with the same content: under several tags they are one video with these tags, in two splits they leak."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pipelines.run.files import hash_content
from tcam.errors import VideoError
from tcam.video.data_folder.scan import FolderEntry
from tcam.video.frame_files import list_frame_files

Copies = Sequence[Sequence[FolderEntry]]
"""Groups of videos with the same content; each lists the original first, then its copies."""

Found = TypeVar("Found")


def of_every_tag(entries: Sequence[FolderEntry], found: Mapping[str, Found]) -> dict[str, Found]:
    """Return what was found in each video by id, for all of its tags; a file is looked at once."""
    by_path = {entry.path: found[entry.video_id] for entry in entries if entry.video_id in found}
    return {entry.video_id: by_path[entry.path] for entry in entries}


def other_tags(copies: Copies) -> dict[str, tuple[str, ...]]:
    """Return the other tags of each video that has several, by its id, in order of their names."""
    found = {}
    for group in copies:
        tags = {entry.class_name for entry in group}
        found.update({entry.video_id: tuple(sorted(tags - {entry.class_name})) for entry in group})
    return {video_id: tags for video_id, tags in found.items() if tags}


def several_note(copies: Copies) -> str:
    """Return how many videos have several tags, as an addition to a note; empty if none has."""
    count = sum(len({entry.class_name for entry in group}) > 1 for group in copies)
    return f"; {count} with several tags count once for each tag" if count else ""


def find_copies(entries: Sequence[FolderEntry]) -> Copies:
    """Group videos with the same content; only files that share their size with another are read."""
    return [group for alike in _groups(entries, _size) for group in _groups(alike, hash_content)]


def without_copies(entries: Sequence[FolderEntry], copies: Copies) -> tuple[FolderEntry, ...]:
    """Leave out copies of another video whose split is not assigned yet."""
    leaders = _leaders(entries, copies)
    return tuple(entry for entry in entries if entry.split is not None or entry.video_id not in leaders)


def with_copies(
    entries: Sequence[FolderEntry], drawn: Sequence[FolderEntry], copies: Copies
) -> tuple[FolderEntry, ...]:
    """Return all videos with their splits from ``drawn``; a copy gets the split of its original, so that none leaks."""
    leaders, splits = _leaders(entries, copies), {entry.video_id: entry.split for entry in drawn}
    return tuple(
        replace(entry, split=splits[entry.video_id if entry.video_id in splits else leaders[entry.video_id]])
        for entry in entries
    )


def _leaders(entries: Sequence[FolderEntry], copies: Copies) -> dict[str, str]:
    """Map every copy to the id of the video in its group whose split it shares.

    Of several classes, that is one with a given split or else of the rarest class, which thus keeps training videos.
    """
    counts = Counter(entry.class_name for entry in entries)
    leaders = {}
    for group in copies:
        classes = {entry.class_name for entry in group}
        leader = group[0] if len(classes) == 1 else min(group, key=lambda e: (e.split is None, counts[e.class_name]))
        leaders.update({entry.video_id: leader.video_id for entry in group if entry is not leader})
    return leaders


def describe_copies(entries: Sequence[FolderEntry], copies: Copies) -> Iterator[tuple[str, str]]:
    """Yield for every copy its video id, and a line that names the original and how the two differ."""
    known = {entry.video_id: entry for entry in entries}
    for first, *others in copies:
        for other in (other for other in others if other.path != first.path):
            yield other.video_id, _describe(known[first.video_id], known[other.video_id])


def _groups(entries: Sequence[FolderEntry], key: Callable[[Path], Hashable]) -> Iterator[list[FolderEntry]]:
    """Group the entries whose paths have the same ``key``; groups of one are left out."""
    found: defaultdict[Hashable, list[FolderEntry]] = defaultdict(list)
    key = functools.cache(key)  # a file with several tags is read once
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
    remedy = "; taken as one video with both tags" if differ else ""
    remedy = "; keep one of them" if first.split != other.split else remedy
    return f"has the same content as {first.video_id}{', ' if differ else ''}{' and '.join(differ)}{remedy}"
