"""Read from disk which videos, shots, frames and boxes a tree of YouTube-Objects v1.0 or v2.2 holds.

Three layouts, each read in place:

* v1.0: ``<class>/data/<video>/shots/<shot>/frame0001.jpg``, boxes in ``frame0001.jpg_sticks.mat`` beside their frame;
* v2.2 as distributed: ``<class>/00000001.jpg``, cut into shots by ``Ranges/ranges_<class>.mat``;
* v2.2 as the WSOL literature sorts it: ``<class>/video-0001/shot-000000/00000001.jpg``.

Boxes of v2.2 are in ``GroundTruth/<class>/bb_gt{Training,Test}_<class>.mat``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from tcam.errors import DataError
from tcam.types import FrameRun
from tcam.video.frame_files import number_runs
from tcam.video.youtube_objects.matlab import read_cell_boxes, read_frame_boxes, read_matrix

CLASSES: Final = ("aeroplane", "bird", "boat", "car", "cat", "cow", "dog", "horse", "motorbike", "train")
Version = Literal["v1.0", "v2.2"]
FrameKey = tuple[str, str, int]
"""A frame of the data set: video id (``cat/data/0003``, ``cat/video-0003``), shot (``017``), number in its name."""
RawBox = tuple[float, ...]
"""Corners as in a file: not yet checked, ordered or clipped."""

_FOLDERS: Final = ("YouTube-Objects-v1.0", "YouTube-Objects-v2.2", "YouTube-Objects-v2.2-original")
_STICKS: Final = ".jpg_sticks.mat"


@dataclass(frozen=True, slots=True)
class VideoFolder:
    """One video: its frames by shot, in order. File names are relative to ``path``; a shot may be empty."""

    video_id: str
    class_name: str
    path: Path
    shots: Mapping[str, tuple[FrameRun, ...]]


@dataclass(slots=True)
class YoutubeTree:
    """The contents of a tree, before splits are assigned.

    ``parts`` holds for each video id whether the data set trains or tests with it (a video of neither is missing).
    """

    root: Path
    version: Version
    videos: list[VideoFolder] = field(default_factory=list)
    boxes: dict[FrameKey, list[RawBox]] = field(default_factory=dict)
    parts: dict[str, Literal["train", "test"]] = field(default_factory=dict)
    warnings: list[tuple[str, str]] = field(default_factory=list)


def find_youtube_objects(folder: Path) -> tuple[Path, Version] | None:
    """Return the root of a tree of YouTube-Objects in a folder, and its version; None if there is none."""
    for root in (folder, *(folder / name for name in _FOLDERS)):
        for name in CLASSES:
            if (root / name / "data").is_dir() and (root / name / "sets").is_dir():
                return root, "v1.0"
            if (root / "Ranges" / f"ranges_{name}.mat").is_file() or _holds(root / name, r"video-\d{4}"):
                return root, "v2.2"
    return None


def read_tree(root: Path, version: Version, *, with_boxes: bool) -> YoutubeTree:
    """List all videos of a tree and, if ``with_boxes``, the boxes and parts from its own files.

    Raises:
        DataError: a file of the data set is missing or damaged, or a video is for training and testing.
    """
    tree = YoutubeTree(root, version)
    names = [name for name in CLASSES if (root / name).is_dir()]
    for name in names:
        if version == "v1.0":
            _read_class_v1(tree, name, with_boxes)
        else:
            _read_class_v2(tree, name)
    if version == "v2.2" and with_boxes:
        truth = next((f for f in (root, Path(f"{root}-original")) if (f / "GroundTruth").is_dir()), None)
        if truth is None:
            raise DataError(
                f"{root} has no GroundTruth folder, nor has {root.name}-original beside it: put it there, or import "
                "the official lists with 'tcam data import-splits FOLDER'"
            )
        for name in names:
            _read_boxes_v2(tree, name, truth / "GroundTruth" / name)
    return tree


def _holds(folder: Path, pattern: str) -> bool:
    return folder.is_dir() and bool(_subfolders(folder, pattern))


def _subfolders(folder: Path, pattern: str) -> list[str]:
    """Return the names of the folders in a folder that match a pattern, sorted."""
    return sorted(name for name in _names(folder) if re.fullmatch(pattern, name) and (folder / name).is_dir())


def _names(folder: Path) -> list[str]:
    """Return all names in a folder; a Path for each of half a million images would take minutes."""
    try:
        with os.scandir(folder) as children:
            return [child.name for child in children]
    except OSError as error:
        raise DataError(f"cannot read {folder} ({error.strerror}): unpack the class again") from error


def _read_class_v1(tree: YoutubeTree, name: str, with_boxes: bool) -> None:
    base = tree.root / name
    for number in _subfolders(base / "data", r"\d+"):
        video_id, folder = f"{name}/data/{number}", base / "data" / number / "shots"
        shots: dict[str, tuple[FrameRun, ...]] = {}
        for shot in _subfolders(folder, r"\d+"):
            files = _names(folder / shot)
            shots[shot] = number_runs((f for f in files if f.endswith(".jpg")), folder=f"{shot}/")
            for file in sorted(f for f in files if with_boxes and f.endswith(_STICKS)):
                _read_sticks(tree, (video_id, shot), folder / shot / file)
        tree.videos.append(VideoFolder(video_id, name, folder, shots))
    known = {video.video_id for video in tree.videos if video.class_name == name}
    for part, video_id in _read_sets(tree, name) if with_boxes else ():
        if tree.parts.get(video_id, part) != part:
            raise DataError(f"{base / 'sets'}: video {video_id} is listed for training and for testing: unpack again")
        if video_id not in known:
            tree.warnings.append((video_id, f"listed in sets/{part}.txt but not on the disk; left out"))
        tree.parts[video_id] = part
    unlisted = sorted(known - tree.parts.keys()) if with_boxes else ()
    tree.warnings += [(video_id, "in neither sets/train.txt nor sets/test.txt; left out") for video_id in unlisted]


def _read_sets(tree: YoutubeTree, name: str) -> Iterator[tuple[Literal["train", "test"], str]]:
    parts: Sequence[Literal["train", "test"]] = ("train", "test")
    for part in parts:
        path = tree.root / name / "sets" / f"{part}.txt"
        try:
            words = path.read_text(encoding="utf-8", errors="replace").split()
        except OSError as error:
            raise DataError(f"cannot read {path} ({error.strerror}): unpack the class {name} again") from error
        yield from ((part, f"{name}/data/{word}") for word in words if word.isdigit() and word[0] == "0")


def _read_sticks(tree: YoutubeTree, shot: tuple[str, str], path: Path) -> None:
    digits = re.search(r"(\d+)\.jpg_sticks\.mat$", path.name)
    frame = path.name.removesuffix("_sticks.mat")
    if digits is None or not path.with_name(frame).is_file():
        tree.warnings.append((shot[0], f"{path.name} of shot {shot[1]} has no frame beside it; its boxes are left out"))
        return
    try:
        tree.boxes[(*shot, int(digits[1]))] = read_cell_boxes(path, "coor")
    except DataError as error:
        tree.warnings.append((shot[0], str(error)))


def _read_class_v2(tree: YoutubeTree, name: str) -> None:
    base = tree.root / name
    numbers = _subfolders(base, r"video-\d+")
    if not numbers:
        tree.videos += _cut_by_ranges(tree.root, name)
    for number in numbers:
        folder = base / number
        shots = {
            shot.removeprefix("shot-"): number_runs(_names(folder / shot), folder=f"{shot}/")
            for shot in _subfolders(folder, r"shot-\d+")
        }
        tree.videos.append(VideoFolder(f"{name}/{number}", name, folder, shots))


def _cut_by_ranges(root: Path, name: str) -> Iterator[VideoFolder]:
    """Split the flat folder of a class into videos and shots; a frame in two ranges belongs to the later one."""
    path = root / "Ranges" / f"ranges_{name}.mat"
    ranges = read_matrix(path, "ranges")
    if ranges.ndim != 2 or ranges.shape[0] != 3:
        raise DataError(f"{path}: expected 3 rows (first frame, last frame, video), found shape {ranges.shape}")
    columns = [(int(first), int(last), int(video)) for first, last, video in ranges.T.tolist()]
    shot_of = {number: i for i, (first, last, _) in enumerate(columns) for number in range(first, last + 1)}
    files: dict[int, list[str]] = {}
    for file in _names(root / name):
        stem, _, suffix = file.partition(".")
        if suffix == "jpg" and stem.isdigit() and int(stem) in shot_of:
            files.setdefault(shot_of[int(stem)], []).append(file)
    for video in dict.fromkeys(video for _, _, video in columns):
        shots = {f"{i:06d}": number_runs(files.get(i, ())) for i, column in enumerate(columns) if column[2] == video}
        yield VideoFolder(f"{name}/video-{video:04d}", name, root / name, shots)


def _read_boxes_v2(tree: YoutubeTree, name: str, folder: Path) -> None:
    """Read the boxes of a class; they decide whether a video is for training or for testing."""
    shot_of = {
        run.first + position: (video.video_id, shot)
        for video in tree.videos
        if video.class_name == name
        for shot, runs in video.shots.items()
        for run in runs
        for position in range(run.count)
    }
    parts: Sequence[tuple[str, Literal["train", "test"]]] = (("Training", "train"), ("Test", "test"))
    for word, part in parts:
        for frame, boxes in read_frame_boxes(folder / f"bb_gt{word}_{name}.mat", f"bb_gt{word}"):
            number = int(frame[-8:]) if frame[-8:].isdigit() else -1
            if number not in shot_of:
                tree.warnings.append((f"{name}/{frame}", f"has {part} boxes but no image; they are left out"))
                continue
            video_id, shot = shot_of[number]
            if tree.parts.setdefault(video_id, part) != part:
                raise DataError(f"{folder}: video {video_id} has boxes for training and for testing: unpack again")
            tree.boxes.setdefault((video_id, shot, number), []).extend(boxes)
