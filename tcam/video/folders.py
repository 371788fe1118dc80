"""A folder of videos whose sub-folders are the tags: ``<root>/<class>/<clip>.mp4`` or ``<class>/<clip>/frame0001.jpg``.

``<root>/clips.csv`` (video, class, split), ``<root>/boxes.csv`` (video, frame, x0, y0, x1, y1) and ``<root>/masks``
(`masks.py`) are optional; a ``video`` is a path below the root with ``/``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from tcam.errors import DataError
from tcam.types import SPLITS, Box, Split
from tcam.video.find import VIDEO_SUFFIXES, find_videos, holds_frames
from tcam.video.masks import MASKS, find_masks
from tcam.video.tables import Row, as_boxes, as_frame, read_rows

BACKGROUND: Final = "background"
"""Stands for the class of videos without any object."""
_EXPECTED: Final = "expected <class>/<clip>.mp4 or <class>/<clip>/frame0001.jpg"


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """One video (file or frame folder); ``split`` is None where no table says it."""

    video_id: str
    path: Path
    class_name: str
    split: Split | None


@dataclass(frozen=True, slots=True)
class FolderSource:
    """What a data folder holds; ``boxes`` by video and frame, in pixels of the frame in display orientation.

    A frame with an empty tuple of boxes is known to hold no object. ``masks`` are image files by video and frame.
    """

    root: Path
    class_names: tuple[str, ...]
    entries: tuple[FolderEntry, ...]
    boxes: dict[tuple[str, int], tuple[Box, ...]]
    masks: dict[tuple[str, int], Path]


def scan_class_folders(root: Path, *, min_classes: int = 2) -> FolderSource:
    """List the tagged videos of a folder without opening them; hidden files are left out.

    Args:
        root: ``<root>/<class>/<clip>``.
        min_classes: how many class folders there must be; learning from tags takes two.

    Raises:
        DataError: no videos, too few classes, or a table that does not fit the files.
    """
    try:
        children = sorted(child for child in root.iterdir() if not child.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read the data folder {root} ({error.strerror}): {_EXPECTED}") from error
    folders = [child for child in children if child.is_dir() and child.name != MASKS]
    entries = [entry for folder in folders for entry in _scan_class(root, folder)]
    if not entries:
        raise DataError(f"{root} holds no videos: {_EXPECTED}, found {_describe(children)}")
    class_names = tuple(sorted({entry.class_name for entry in entries}))
    if len(class_names) < min_classes:
        raise DataError(
            f"{root} holds one class only ({class_names[0]!r}): learning from tags needs at least two class folders"
        )
    return FolderSource(
        root,
        class_names,
        _read_clips(root, class_names, entries),
        _read_boxes(root, entries),
        find_masks(root, [entry.video_id for entry in entries]),
    )


def scan_background(root: Path) -> FolderSource:
    """List the videos of a folder, at any depth, that show no object; all are for training.

    Raises:
        DataError: there is none.
    """
    if not root.is_dir():
        raise DataError(f"expected a folder of videos without any object, found no folder {root}")
    videos = [root] if holds_frames(root) else list(find_videos(root))
    if not videos:
        raise DataError(f"expected videos without any object in {root}, found none")
    entries = tuple(
        # The colon keeps the name apart from all videos of classes: it stands in no path below a data folder's class.
        FolderEntry(f"{BACKGROUND}:{path.relative_to(root).as_posix()}", path, BACKGROUND, "train")
        for path in videos
    )
    return FolderSource(root, (BACKGROUND,), entries, {}, {})


def assign_splits(
    entries: Sequence[FolderEntry],
    *,
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    generator: torch.Generator,
) -> tuple[FolderEntry, ...]:
    """Draw a split for every video that has none, class by class; every class keeps at least one training video.

    Raises:
        ValueError: fractions below 0 or with nothing left for training.
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
    """Give ``count`` splits: the first for training where the class has none there, then test, val, train."""
    spare = count if trained else max(count - 1, 0)
    test = min(max(round(count * test_fraction), int(test_fraction > 0)), spare)
    val = min(max(round(count * val_fraction), int(val_fraction > 0)), spare - test)
    splits: list[Split] = ["train"] * (count - test - val)
    return splits + ["val"] * val + ["test"] * test


def _scan_class(root: Path, folder: Path) -> Iterator[FolderEntry]:
    for path in find_videos(folder):
        yield FolderEntry(path.relative_to(root).as_posix(), path, folder.name, None)


def _read_clips(root: Path, class_names: Sequence[str], entries: Sequence[FolderEntry]) -> tuple[FolderEntry, ...]:
    """Join ``clips.csv`` to the files."""
    known = {entry.video_id: entry for entry in entries}
    if not (root / "clips.csv").exists():
        return tuple(entries)
    for row in read_rows(root / "clips.csv", required=("video", "class")):
        entry = _known_video(row, known, root)
        if row["class"] not in class_names:
            raise DataError(f"{row.where}: class {row['class']!r} has no folder; the classes are {_few(class_names)}")
        if row["class"] != entry.class_name:
            raise DataError(
                f"{row.where}: class {row['class']!r}, but {entry.video_id} lies in the folder {entry.class_name!r}"
            )
        split = next((name for name in SPLITS if name == row["split"]), None)
        if row["split"] and split is None:
            raise DataError(f"{row.where}: split must be one of {', '.join(SPLITS)}, got {row['split']!r}")
        known[entry.video_id] = replace(entry, split=split)
    return tuple(known[entry.video_id] for entry in entries)


def _read_boxes(root: Path, entries: Sequence[FolderEntry]) -> dict[tuple[str, int], tuple[Box, ...]]:
    known = {entry.video_id: entry for entry in entries}
    boxes: dict[tuple[str, int], list[Box]] = {}
    if (root / "boxes.csv").exists():
        for row in read_rows(root / "boxes.csv", required=("video", "frame", "x0", "y0", "x1", "y1")):
            entry = _known_video(row, known, root)
            boxes.setdefault((entry.video_id, as_frame(row)), []).extend(as_boxes(row))
    return {key: tuple(found) for key, found in boxes.items()}


def _known_video(row: Row, known: dict[str, FolderEntry], root: Path) -> FolderEntry:
    entry = known.get(row["video"])
    if entry is None:
        raise DataError(f"{row.where}: video {row['video']!r} is not in {root}, which holds {_few(sorted(known))}")
    return entry


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _describe(children: Sequence[Path]) -> str:
    if not children:
        return "nothing"
    videos = sum(child.suffix.lower() in VIDEO_SUFFIXES for child in children)
    hint = " (videos must lie in a folder named after their class)" if videos else ""
    return _few([child.name for child in children]) + hint
