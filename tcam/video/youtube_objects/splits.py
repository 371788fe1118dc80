"""Assign the videos of YouTube-Objects to splits: by the official lists, or drawn as the authors of TCAM did.

The lists are in the format of "WSOL done right" (Choe et al., arXiv 2001.07437); TCAM (arXiv 2208.14542) and CoLo-CAM
(arXiv 2303.09044) share them: shots for training; frames, sizes and boxes for validation and testing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tcam.errors import DataError
from tcam.types import SPLITS, Size, Split
from tcam.video.youtube_objects.layout import CLASSES, FrameKey, RawBox, Version, YoutubeTree

_FRAME_ID: Final = {
    "v1.0": re.compile(r"(([a-z]+)/data/\d{4})/shots/(\d{3})(?:/frame(\d+)\.jpg)?"),
    "v2.2": re.compile(r"(([a-z]+)/video-\d{4})/shot-(\d{6})(?:/(\d{8})\.jpg)?"),
}
_VAL_VIDEOS: Final = {"v1.0": 5, "v2.2": 3}


@dataclass(slots=True)
class SplitLists:
    """The official lists: the shots for training, and the frames of the other splits with their sizes and boxes."""

    folder: Path
    version: Version
    splits: dict[str, Split] = field(default_factory=dict)
    """By video id."""
    shots: set[tuple[str, str]] = field(default_factory=set)
    """(video id, shot) to train with."""
    frames: set[FrameKey] = field(default_factory=set)
    sizes: dict[FrameKey, Size] = field(default_factory=dict)
    boxes: dict[FrameKey, list[RawBox]] = field(default_factory=dict)


def read_split_lists(folder: Path) -> SplitLists:
    """Read and check ``<folder>/{train,val,test}/{image_ids,class_labels,image_sizes,localization}.txt``.

    Raises:
        DataError: a list is missing, or a line does not follow the format; the message names file and line.
    """
    first = next((line for _, line in _lines(folder / "train" / "image_ids.txt")), "")
    version: Version = "v2.2" if _FRAME_ID["v2.2"].fullmatch(first) else "v1.0"
    lists = SplitLists(folder, version)
    for split in SPLITS:
        ids = _read_ids(lists, split)
        _read_labels(lists, split, ids)
        if split != "train":
            _read_sizes(lists, split, ids)
            _read_boxes(lists, split, ids)
    return lists


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the non-empty lines of a list, each with its place for messages."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the split list {path} ({error}): expected train, val and test folders with image_ids.txt, "
            "class_labels.txt, image_sizes.txt and localization.txt"
        ) from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"{path}, line {number}", line.strip()


def _read_ids(lists: SplitLists, split: Split) -> dict[str, tuple[FrameKey, str]]:
    """Read the ids of a split; return key and class by id (a shot for training has frame number -1)."""
    ids: dict[str, tuple[FrameKey, str]] = {}
    for where, line in _lines(lists.folder / split / "image_ids.txt"):
        parts = _FRAME_ID[lists.version].fullmatch(line)
        if parts is None or parts[2] not in CLASSES or (parts[4] is None) != (split == "train"):
            kind = "shot" if split == "train" else "frame"
            raise DataError(f"{where}: expected a {kind} of YouTube-Objects {lists.version}, found {line[:80]!r}")
        if line in ids:
            raise DataError(f"{where}: {line} is listed twice")
        if lists.splits.setdefault(parts[1], split) != split:
            raise DataError(f"{where}: video {parts[1]} is of the {lists.splits[parts[1]]} split already")
        key = (parts[1], parts[3], -1 if parts[4] is None else int(parts[4]))
        ids[line] = (key, parts[2])
        if split == "train":
            lists.shots.add(key[:2])
        else:
            lists.frames.add(key)
    if not ids:
        raise DataError(f"{lists.folder / split / 'image_ids.txt'}: expected ids, found an empty list")
    return ids


def _read_values(
    lists: SplitLists, split: Split, name: str, ids: dict[str, tuple[FrameKey, str]], count: int
) -> Iterator[tuple[str, str, list[float]]]:
    for where, line in _lines(lists.folder / split / name):
        image_id, *values = line.split(",")
        if image_id not in ids:
            raise DataError(f"{where}: {image_id[:80]!r} is not in image_ids.txt")
        try:
            numbers = [float(value) for value in values]
        except ValueError:
            numbers = []
        if len(numbers) != count:
            raise DataError(f"{where}: expected {count} numbers behind the id, found {line[len(image_id) :][:60]!r}")
        yield where, image_id, numbers


def _read_labels(lists: SplitLists, split: Split, ids: dict[str, tuple[FrameKey, str]]) -> None:
    seen = set()
    for where, image_id, (label,) in _read_values(lists, split, "class_labels.txt", ids, 1):
        name = ids[image_id][1]
        if label != CLASSES.index(name):
            raise DataError(f"{where}: expected class {CLASSES.index(name)} ({name}), found {label:g}")
        seen.add(image_id)
    _require_all(lists, split, "class_labels.txt", ids.keys() - seen)


def _read_sizes(lists: SplitLists, split: Split, ids: dict[str, tuple[FrameKey, str]]) -> None:
    for where, image_id, (width, height) in _read_values(lists, split, "image_sizes.txt", ids, 2):
        if min(width, height) < 1:
            raise DataError(f"{where}: expected width and height, found {width:g} and {height:g}")
        lists.sizes[ids[image_id][0]] = (int(height), int(width))
    _require_all(lists, split, "image_sizes.txt", {i for i, (key, _) in ids.items() if key not in lists.sizes})


def _read_boxes(lists: SplitLists, split: Split, ids: dict[str, tuple[FrameKey, str]]) -> None:
    for _, image_id, box in _read_values(lists, split, "localization.txt", ids, 4):
        lists.boxes.setdefault(ids[image_id][0], []).append(tuple(box))
    _require_all(lists, split, "localization.txt", {i for i, (key, _) in ids.items() if key not in lists.boxes})


def _require_all(lists: SplitLists, split: Split, name: str, missing: set[str]) -> None:
    if missing:
        raise DataError(f"{lists.folder / split / name}: expected every id of image_ids.txt, {min(missing)} is missing")


def draw_splits(tree: YoutubeTree) -> dict[str, Split]:
    """Choose validation videos among the training ones as the authors of TCAM did; return the split by video id.

    v1.0: of the annotated training videos of a class, sorted, the first 5 after 1000 shuffles seeded with the number
    of the class. v2.2: the first 3 training videos of a class in order of their shots. A class keeps at least one
    training video. Videos of neither part are left out.
    """
    splits: dict[str, Split] = dict(tree.parts)
    annotated = {key[0] for key in tree.boxes}
    for label, name in enumerate(CLASSES):
        videos = [v for v in tree.videos if v.class_name == name and tree.parts.get(v.video_id) == "train"]
        if tree.version == "v1.0":
            candidates = sorted(v.video_id for v in videos if v.video_id in annotated)
            shuffler = random.Random(label)  # noqa: S311  # the published protocol, not a secret
            for _ in range(1000):
                shuffler.shuffle(candidates)
        else:
            candidates = [v.video_id for v in sorted(videos, key=lambda v: min(v.shots, default=""))]
        for video_id in candidates[: min(_VAL_VIDEOS[tree.version], len(videos) - 1)]:
            splits[video_id] = "val"
    return splits
