"""A folder of videos whose sub-folders are the tags: ``<root>/<class>/<clip>.mp4`` or ``<class>/<clip>/frame0001.jpg``.

Folders may name splits too (``layout.py``). ``<root>/clips.csv`` (video, class, split), ``<root>/boxes.csv`` (video,
frame, box) and ``<root>/masks`` (`masks.py`) are optional (``clip_tables.py``); with tags in a table, videos may lie
flat in the folder. A video that the table gives several tags is listed once for each, as ``dog:rex.mp4`` and
``cat:rex.mp4``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NoReturn

import torch

from tcam.errors import DataError
from tcam.types import Split
from tcam.video.data_folder.clip_tables import (
    BOXES,
    CLIPS,
    FIND_OUT,
    BoxConvention,
    ClipRow,
    Notes,
    TableBox,
    VideosByTag,
    few,
    find_clip_table,
    read_boxes,
    read_clips,
)
from tcam.video.data_folder.find import (
    MASKS,
    OTHER,
    UNTAGGED,
    VIDEO_SUFFIXES,
    FoundVideos,
    PassedOver,
    find_videos,
    pass_over,
)
from tcam.video.data_folder.layout import Place, read_layout
from tcam.video.data_folder.masks import find_masks
from tcam.video.data_folder.tables import Table
from tcam.video.frame_files import holds_pages
from tcam.video.pictures.image import IMAGE_SUFFIXES

BACKGROUND: Final = "background"
"""Class name of videos without any object."""
_EXPECTED: Final = "expected <class>/<clip>.mp4 or <class>/<clip>/frame0001.jpg"


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """One video (file or frame folder) and a tag of it; ``split`` is None if neither folder nor table names it."""

    video_id: str
    path: Path
    class_name: str
    split: Split | None


@dataclass(frozen=True, slots=True)
class FolderSource:
    """The contents of a data folder.

    ``boxes`` by video and frame are in the units of their table; an empty tuple marks a frame without any object.
    ``masks`` are image files by video and frame. ``passed`` are the files that belong to nothing, ``files`` counts all
    by kind: ``videos``, ``tables``, ``masks``, ``passed over``. ``notes`` are remarks on the tables, by table name.
    """

    root: Path
    class_names: tuple[str, ...]
    entries: tuple[FolderEntry, ...]
    boxes: dict[tuple[str, int], tuple[TableBox, ...]]
    masks: dict[tuple[str, int], Path]
    passed: tuple[PassedOver, ...] = ()
    files: Mapping[str, int] | None = None
    notes: Notes = ()


def scan_class_folders(root: Path, *, min_classes: int = 2, convention: BoxConvention = FIND_OUT) -> FolderSource:
    """List the tagged videos of a folder without opening them; hidden files are left out.

    Args:
        root: ``<root>/<class>/<clip>``, or another of the layouts of this package.
        min_classes: minimum number of classes; learning from tags needs two.
        convention: how the table of boxes counts, if it does not say so itself.

    Raises:
        DataError: no videos, too few classes, or a table that does not match the files.
    """
    loose = _list_root(root)
    found = find_videos(root, below=True, skip=(MASKS,))
    table = find_clip_table(root, flat=not any(path.parent != root for path in found.paths))
    entries, untagged, notes = _tag(root, [*loose.videos, *found.paths], table)
    if not entries:
        raise DataError(f"{root} holds no videos: {_EXPECTED}, found {_describe(root, loose)}")
    class_names = tuple(sorted({entry.class_name for entry in entries}))
    if len(class_names) < min_classes:
        raise DataError(
            f"{root} holds one class only ({class_names[0]!r}): learning from tags needs at least two class folders"
        )
    videos = _by_tag(root, entries)
    boxes, box_notes = read_boxes(root / BOXES, root, videos, convention)
    masks = find_masks(root, videos)
    tables = {BOXES, table.path.name if table is not None else BOXES} & set(loose.others)
    passed = _passed_over(root, found, loose, untagged=untagged, tables=tables, masks=set(masks.values()))
    files = {
        "videos": found.taken + len(loose.videos) - sum(g.count for g in passed if g.reason == UNTAGGED),
        "tables": len(tables),
        "masks": len(masks),
        "passed over": sum(group.count for group in passed),
    }
    return FolderSource(root, class_names, entries, boxes, masks, passed, files, (*notes, *box_notes))


def scan_background(root: Path) -> FolderSource:
    """List the videos of a folder, at any depth, that show no object; all are used for training.

    Raises:
        DataError: there are none.
    """
    if not root.is_dir():
        raise DataError(f"expected a folder of videos without any object, found no folder {root}")
    found = find_videos(root)
    if not found.paths:
        raise DataError(f"expected videos without any object in {root}, found none")
    entries = tuple(
        # The colon keeps these ids apart from those of tagged videos, which begin with the folder of their class.
        FolderEntry(f"{BACKGROUND}:{path.relative_to(root).as_posix()}", path, BACKGROUND, "train")
        for path in found.paths
    )
    return FolderSource(root, (BACKGROUND,), entries, {}, {}, found.passed)


def assign_splits(
    entries: Sequence[FolderEntry],
    *,
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    generator: torch.Generator,
) -> tuple[FolderEntry, ...]:
    """Draw a split for every video that has none, class by class; every class keeps at least one training video.

    Raises:
        ValueError: fractions below 0, or that leave nothing for training.
    """
    if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
        raise ValueError(f"expected fractions of 0 or more, below 1 in sum, got {val_fraction} and {test_fraction}")
    drawn: dict[str, Split] = {}
    for name in sorted({entry.class_name for entry in entries}):
        free = sorted(entry.video_id for entry in entries if entry.class_name == name and entry.split is None)
        trained = any(entry.class_name == name and entry.split == "train" for entry in entries)
        order = [free[int(i)] for i in torch.randperm(len(free), generator=generator)]
        for video_id, split in zip(order, _deal(len(free), val_fraction, test_fraction, trained), strict=True):
            drawn[video_id] = split
    return tuple(replace(entry, split=drawn.get(entry.video_id, entry.split)) for entry in entries)


def _deal(count: int, val_fraction: float, test_fraction: float, trained: bool) -> list[Split]:
    """Return ``count`` splits: first one for training if the class has none there, then test, val, train."""
    spare = count if trained else max(count - 1, 0)
    test = min(max(round(count * test_fraction), int(test_fraction > 0)), spare)
    val = min(max(round(count * val_fraction), int(val_fraction > 0)), spare - test)
    splits: list[Split] = ["train"] * (count - test - val)
    return splits + ["val"] * val + ["test"] * test


@dataclass(frozen=True, slots=True)
class _Loose:
    """Files of the data folder itself, except hidden ones: video files, other files."""

    videos: tuple[Path, ...]
    others: tuple[str, ...]


def _list_root(root: Path) -> _Loose:
    try:
        files = sorted(child for child in root.iterdir() if not child.is_dir())
    except OSError as error:
        raise DataError(f"cannot read the data folder {root} ({error.strerror}): {_EXPECTED}") from error
    shown = [file for file in files if not file.name.startswith(".")]
    videos = [file for file in shown if file.suffix.lower() in VIDEO_SUFFIXES or holds_pages(file)]
    return _Loose(tuple(videos), tuple(file.name for file in shown if file not in videos))


def _tag(root: Path, paths: Sequence[Path], table: Table | None) -> tuple[tuple[FolderEntry, ...], list[Path], Notes]:
    """Assign a tag and split to every video, from its folders and the table; those without a tag come second."""
    relative = [path.relative_to(root) for path in paths]
    inside = [path for path in relative if len(path.parts) > 1 or (root / path).is_dir()]
    known = dict(zip(inside, read_layout(inside), strict=True))
    places = {path.as_posix(): known.get(path, (None, None)) for path in relative}
    rows, notes = ({}, ()) if table is None else read_clips(table, root, list(places))
    if rows:  # with a table, a frame folder directly in the data folder does not name a class
        places |= {path.as_posix(): (None, None) for path in relative if len(path.parts) == 1}
    classes = {class_name for class_name, _ in places.values() if class_name is not None}
    by_table = _tags_are_in_table(places, rows)
    entries: list[FolderEntry] = []
    untagged: list[Path] = []
    for path, (video_id, place) in zip(relative, places.items(), strict=True):
        row = rows.get(video_id, ClipRow("", None, None))
        if row.tags and place[0] is not None and place[0] not in row.tags and not by_table:
            _refuse_class(row, video_id, place[0], classes)
        if None not in (row.split, place[1]) and row.split != place[1]:
            raise DataError(f"{row.where}: split {row.split!r}, but {video_id} lies in a folder of {place[1]!r}")
        tags = row.tags or (() if place[0] is None else (place[0],))
        entries += _entries(root / path, video_id, tags, row.split or place[1])
        untagged += [] if tags else [root / path]
    return tuple(sorted(entries, key=lambda entry: entry.path)), untagged, notes


def _entries(path: Path, video_id: str, tags: Sequence[str], split: Split | None) -> Iterator[FolderEntry]:
    """Yield a video once for each of its tags; of several, each has an id of its own."""
    for tag in sorted(tags):
        yield FolderEntry(video_id if len(tags) == 1 else f"{tag}:{video_id}", path, tag, split)


def _by_tag(root: Path, entries: Sequence[FolderEntry]) -> VideosByTag:
    """Return the ids of every video by its tags; videos are named by their paths below the folder."""
    videos: dict[str, dict[str, str]] = {}
    for entry in entries:
        videos.setdefault(entry.path.relative_to(root).as_posix(), {})[entry.class_name] = entry.video_id
    return videos


def _tags_are_in_table(places: Mapping[str, Place], rows: Mapping[str, ClipRow]) -> bool:
    """Whether the table names the tag of every video, and no folder has the name of one of those tags."""
    tags = {tag for row in rows.values() for tag in row.tags}
    folders = {class_name for class_name, _ in places.values()}
    return bool(rows) and rows.keys() == places.keys() and all(row.tags for row in rows.values()) and not tags & folders


def _refuse_class(row: ClipRow, video_id: str, folder_class: str, classes: Set[str]) -> NoReturn:
    if row.class_name not in classes:
        raise DataError(f"{row.where}: class {row.class_name!r} has no folder; the classes are {few(classes)}")
    raise DataError(f"{row.where}: class {row.class_name!r}, but {video_id} lies in the folder {folder_class!r}")


def _passed_over(
    root: Path, found: FoundVideos, loose: _Loose, *, untagged: Sequence[Path], tables: Set[str], masks: Set[Path]
) -> tuple[PassedOver, ...]:
    """List all files that belong to nothing, from the search and from places that were not searched."""
    lost = [file for path in untagged for file in (_images(path) if path.is_dir() else [path])]
    others = [name for name in loose.others if name not in tables]
    below_masks = [path for path in (root / MASKS).rglob("*") if not path.is_dir() and path not in masks]
    groups = [
        *pass_over(root, OTHER, [root / name for name in others]),
        *pass_over(root, UNTAGGED, lost),
        *pass_over(root, f"no {MASKS} of frames", below_masks),
    ]
    return (*groups, *found.passed)


def _images(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."]


def _describe(root: Path, loose: _Loose) -> str:
    names = sorted(child.name for child in root.iterdir() if not child.name.startswith("."))
    if not names:
        return "nothing"
    hint = f" (videos must lie in a folder named after their class, or {CLIPS} must name it)" if loose.videos else ""
    return few(names) + hint
