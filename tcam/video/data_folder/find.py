"""Find the files and folders that are videos, by their names (and, for pictures, by how many frames they hold).

A folder that holds images and no videos is itself a video. All other files are passed over and counted, so that files
taken and files passed over add up to all files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tcam.files import file_size
from tcam.video.frame_files import holds_pages
from tcam.video.pictures.image import IMAGE_SUFFIXES, PAGED_SUFFIXES

_SUFFIXES: Final = """
mp4 m4v mov qt mkv avi divx webm mpg mpeg mpe m1v m2v vob ts mts m2ts m2t tod mod wmv asf flv f4v ogv ogg ogm 3gp 3g2
gif apng mxf gxf rm rmvb dv nut nuv nsv ivf obu y4m h264 264 avc h265 265 hevc h263 mjpg mjpeg wtv amv swf roq smk bik
fli flc dav lrv insv vc1 drc mj2 av1
"""
VIDEO_SUFFIXES: Final = frozenset(f".{name}" for name in _SUFFIXES.split())
_MAX_DEPTH: Final = 6
_DEVICE_FOLDERS: Final = frozenset(
    {"@eadir", "#recycle", "@recycle", "$recycle.bin", "__macosx", "lost+found", "system volume information"}
    | {"thumbnails", "thumbs", "@tmp", "#snapshot", "@recently-snapshot"}
)
"""Folders of storage devices and viewers, in lower case; like hidden ones they are not searched."""
_RUN_FILES: Final = frozenset({"config.yaml", "env.json"})
_EXAMPLES: Final = 3

MASKS: Final = "masks"
"""Name of the folder of masks: beside the folders of classes, and not one of them."""
HIDDEN: Final = "hidden, or of a storage device or viewer"
BESIDE: Final = "pictures beside videos"
INSIDE: Final = "below a folder of frames"
DEEP: Final = f"more than {_MAX_DEPTH} folders deep"
RUN: Final = "a run of tcam"
AGAIN: Final = "a link to a folder that is searched anyway"
UNREADABLE: Final = "a folder that cannot be read"
UNTAGGED: Final = "without a tag, by folder or table"
OTHER: Final = "no video or picture that is known by its ending"


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Files of one folder that belong to no video: where, why, how many, and the names of the first few."""

    folder: str
    reason: str
    count: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.names) else ""
        return f"{self.folder}: {self.count} passed over ({self.reason}): {', '.join(self.names)}{more}"


@dataclass(frozen=True, slots=True)
class FoundVideos:
    """The result of a search.

    ``paths`` are video files, files of several pictures, and frame folders, sorted. ``taken`` is the number of files
    that they consist of, ``passed`` are the others.
    """

    paths: tuple[Path, ...]
    taken: int
    passed: tuple[PassedOver, ...]


def find_videos(root: Path, *, below: bool = False, skip: Sequence[str] = ()) -> FoundVideos:
    """Find the video files and frame folders in a folder. Every file with a video's suffix counts, whatever it holds.

    A folder that holds videos and some pictures is a folder of videos. Images beside folders of images are frames if
    they are at least as many as in any of those folders.

    Args:
        root: where to look; if it is a frame folder, it is the only video.
        below: ignore the files of ``root`` itself, search only its folders.
        skip: folders of ``root`` to ignore.
    """
    search = _Search(root, frozenset(skip))
    paths, taken = search.look_into(root, depth=0, only_folders=below)
    return FoundVideos(tuple(paths), taken, search.passed_over())


def pass_over(root: Path, reason: str, files: Sequence[Path]) -> list[PassedOver]:
    """Group files that are passed over for the same reason by their folder below ``root``."""
    search = _Search(root, frozenset())
    for file in files:
        search.pass_names(file.parent, reason, [file.name])
    return list(search.passed_over())


def summarize_passed(passed: Sequence[PassedOver], *, most: int = 5) -> str | None:
    """Describe in one line how many files were passed over, and where; None if there are none."""
    if not passed:
        return None
    reasons = Counter[str]()
    for group in passed:
        reasons[group.reason] += group.count
    parts = [f"{count} {reason}" for reason, count in reasons.most_common()]
    first = "; ".join(f"{group.folder}/{group.names[0]}" for group in passed[:most])
    more = ", ..." if len(passed) > most else ""
    return f"passed over {reasons.total()} files ({'; '.join(parts)}): {first}{more}"


@dataclass
class _Search:
    """One search, with the files passed over by folder and reason."""

    root: Path
    skip: frozenset[str]
    seen: set[str] = field(default_factory=set)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    names: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def look_into(self, folder: Path, *, depth: int, only_folders: bool = False) -> tuple[list[Path], int]:
        """Return the videos of a folder, and the number of files that they consist of."""
        files, folders = self._list(folder)
        self.seen.add(os.path.realpath(folder))
        if files is None:
            return [], 0
        if only_folders:
            files = []
        folders = [name for name in folders if depth or name not in self.skip]
        videos = [name for name in files if _suffix(name) in VIDEO_SUFFIXES]
        images = [name for name in files if _suffix(name) in IMAGE_SUFFIXES]
        self.pass_names(folder, OTHER, (n for n in files if _suffix(n) not in VIDEO_SUFFIXES | IMAGE_SUFFIXES))
        paged = set(_of_several_pages(folder, images))
        videos, images = [*videos, *paged], [name for name in images if name not in paged]
        below = {name: self._look_below(folder / name, depth=depth + 1) for name in folders}
        if images and not videos and self._are_frames(images, below):
            for name in folders:
                self._forget(folder / name)
                self._pass_all(folder / name, INSIDE)
            return [folder], len(images)
        self.pass_names(folder, BESIDE, images)
        found = [folder / name for name in videos] + [path for paths, _ in below.values() for path in paths]
        return sorted(found), len(videos) + sum(taken for _, taken in below.values())

    def passed_over(self) -> tuple[PassedOver, ...]:
        """List what was passed over, by folder."""
        return tuple(
            PassedOver(where, reason, count, tuple(self.names[where, reason]))
            for (where, reason), count in sorted(self.counts.items())
        )

    def _list(self, folder: Path) -> tuple[list[str] | None, list[str]]:
        """Return the names of files and of folders to search; other folders are passed over here."""
        try:
            with os.scandir(folder) as children:
                entries = sorted((child.name, child.is_dir()) for child in children)
        except OSError:
            self.pass_names(folder.parent, UNREADABLE, [folder.name])
            return None, []
        hidden = [
            entry for entry in entries if entry[0][0] == "." or (entry[1] and entry[0].lower() in _DEVICE_FOLDERS)
        ]
        for name in (name for name, is_dir in hidden if is_dir):
            self._pass_all(folder / name, HIDDEN)
        self.pass_names(folder, HIDDEN, (name for name, is_dir in hidden if not is_dir))
        shown = [entry for entry in entries if entry not in hidden]
        return [name for name, is_dir in shown if not is_dir], [name for name, is_dir in shown if is_dir]

    def _look_below(self, folder: Path, *, depth: int) -> tuple[list[Path], int]:
        if os.path.realpath(folder) in self.seen:
            self.pass_names(folder.parent, AGAIN, [folder.name])
            return [], 0
        if depth > _MAX_DEPTH or all((folder / name).is_file() for name in _RUN_FILES):
            self._pass_all(folder, DEEP if depth > _MAX_DEPTH else RUN)
            return [], 0
        paths, taken = self.look_into(folder, depth=depth)
        if not paths and _suffix(folder.name) in VIDEO_SUFFIXES:
            return [folder], taken
        return paths, taken

    @staticmethod
    def _are_frames(images: Sequence[str], below: dict[str, tuple[list[Path], int]]) -> bool:
        """Whether images beside folders are frames: the folders hold only images, and none of them more."""
        inside = [(path, taken) for paths, taken in below.values() for path in paths]
        return all(path.is_dir() and taken <= len(images) for path, taken in inside) and (not inside or len(images) > 1)

    def pass_names(self, folder: Path, reason: str, names: Iterable[str]) -> None:
        """Record files of a folder that belong to no video."""
        where = folder.relative_to(self.root).as_posix() if folder.is_relative_to(self.root) else "."
        for name in names:
            self.counts[where, reason] += 1
            known = self.names.setdefault((where, reason), [])
            if len(known) < _EXAMPLES:
                known.append(name)

    def _pass_all(self, folder: Path, reason: str) -> None:
        """Pass over all files below a folder, whatever they are; a link to a folder counts as a file."""
        for place, folders, files in os.walk(folder):
            links = [name for name in folders if Path(place, name).is_symlink()]
            self.pass_names(Path(place), reason, sorted([*files, *links]))

    def _forget(self, folder: Path) -> None:
        """Remove what was recorded as passed over below a folder."""
        for where, reason in [key for key in self.counts if (self.root / key[0]).is_relative_to(folder)]:
            del self.counts[where, reason], self.names[where, reason]


def _of_several_pages(folder: Path, images: Sequence[str]) -> list[str]:
    """Find files of several frames; opens all only if the first, the last or the largest one is such a file."""
    maybe = [name for name in images if _suffix(name) in PAGED_SUFFIXES]
    if not maybe:
        return []
    largest = max(maybe, key=lambda name: file_size(folder / name))
    if not any(holds_pages(folder / name) for name in {maybe[0], maybe[-1], largest}):
        return []
    return [name for name in maybe if holds_pages(folder / name)]


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  # a million names: no Path for each
