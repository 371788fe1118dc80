"""Write trees that look like YouTube-Objects, from split lists: real JPEG and .mat files in the published layouts.

python -m tests.helpers.youtube_objects_tree v1.0 ../shared/data/yto_splits/YouTube-Objects-v1.0 OUT [--frames 3]

Pictures are a rectangle in the colour of the class, one file per class and size; all others are hard links to it. What
the lists do not say is invented: the frames of training shots, which of v2.2's training frames have boxes, and videos
of no split.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image, ImageDraw

CLASSES = ("aeroplane", "bird", "boat", "car", "cat", "cow", "dog", "horse", "motorbike", "train")
SPLITS = ("train", "val", "test")
TRAIN_SIZE = (96, 72)


@dataclass
class Lists:
    """The lists as they stand: shots of training by video, sizes and boxes of frames by id, split by video."""

    shots: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    boxes: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    splits: dict[str, str] = field(default_factory=dict)


def video_of(image_id: str) -> str:
    parts = image_id.split("/")
    return "/".join(parts[:3] if parts[1] == "data" else parts[:2])


def read_lists(folder: Path, classes=CLASSES) -> Lists:
    lists = Lists()

    def lines(split, name):
        return [line for line in (folder / split / name).read_text().split() if line.split("/")[0] in classes]

    for split in SPLITS:
        for line in lines(split, "image_ids.txt"):
            lists.splits[video_of(line)] = split
            if split == "train":
                lists.shots[video_of(line)].append(line)
        for line in lines(split, "image_sizes.txt"):
            image_id, width, height = line.split(",")
            lists.sizes[image_id] = (int(width), int(height))
        for line in lines(split, "localization.txt"):
            image_id, *corners = line.split(",")
            lists.boxes[image_id].append([float(side) for side in corners])
    return lists


class Pictures:
    """Makes JPEG files of a class and size, one on the disk and any number of links to it."""

    def __init__(self):
        self._made: dict[tuple[str, tuple[int, int]], Path] = {}

    def put(self, path: Path, name: str, size: tuple[int, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = self._made.get((name, size))
        try:
            if made is not None:
                os.link(made, path)
                return
        except OSError:
            pass  # too many links, or a disk without any
        hue = 25 * CLASSES.index(name)
        image = Image.new("HSV", size, (hue, 60, 90))
        width, height = size
        ImageDraw.Draw(image).rectangle((width // 4, height // 4, width * 3 // 4, height * 3 // 4), (hue, 255, 255))
        image.convert("RGB").save(path, quality=70)
        self._made[name, size] = path


def write_sticks(path: Path, boxes) -> None:
    """Boxes of one frame of v1.0: a cell array of vectors."""
    cells = np.empty((1, len(boxes)), dtype=object)
    for i, box in enumerate(boxes):
        cells[0, i] = np.array(box, dtype=np.float64)
    scipy.io.savemat(path, {"coor": cells})


def write_v1(lists: Lists, root: Path, *, frames: int = 3) -> Path:
    """Write v1.0: training shots of ``frames`` frames, annotated ones up to their last annotated frame, and sets."""
    pictures, parts = Pictures(), defaultdict(list)
    for video, split in sorted(lists.splits.items()):
        name, _, number = video.split("/")
        parts[name, "test" if split == "test" else "train"].append(number)
        for shot in lists.shots.get(video, ()):
            for frame in range(1, frames + 1):
                pictures.put(root / shot / f"frame{frame:04d}.jpg", name, TRAIN_SIZE)
    last: dict[str, int] = defaultdict(int)
    for image_id in lists.sizes:
        shot, file = image_id.rsplit("/", 1)
        last[shot] = max(last[shot], int(file[5:9]))
    size_of = {image_id.rsplit("/", 1)[0]: size for image_id, size in lists.sizes.items()}
    for shot, stop in last.items():
        for frame in range(1, max(stop, frames) + 1):
            pictures.put(root / shot / f"frame{frame:04d}.jpg", shot.split("/")[0], size_of[shot])
    for image_id in lists.sizes:
        write_sticks(root / f"{image_id}_sticks.mat", lists.boxes[image_id])
    for name in {name for name, _ in parts}:
        (root / name / "sets").mkdir(parents=True, exist_ok=True)
        for part in ("train", "test"):
            text = "".join(f"{number}\n" for number in sorted(parts[name, part]))
            (root / name / "sets" / f"{part}.txt").write_text(f"{part}\n{text}")
    return root


@dataclass
class Column:
    """One shot of v2.2: a column of ``ranges``."""

    video: int
    frames: list[int]


def plan_v2(lists: Lists, name: str, *, frames: int = 2) -> list[Column]:
    """Lay out the shots of a class; listed frames keep their numbers, unlisted shots go to a video of no part."""
    video, annotated = {}, defaultdict(list)
    for image_id in [*lists.sizes, *(shot for shots in lists.shots.values() for shot in shots)]:
        parts = image_id.split("/")
        if parts[0] == name:
            video[int(parts[2][5:])] = int(parts[1][6:])
            if len(parts) == 4:
                annotated[int(parts[2][5:])].append(int(parts[3][:8]))
    columns, number = [], 1
    for i in range(max(video) + 1):
        if annotated[i]:
            listed = sorted(annotated[i])
            assert listed[0] >= number, (name, i)
            shown = sorted({*listed, listed[-1] + 1 if listed[-1] + 1 < _next(annotated, i) else listed[-1]})
        else:
            room = max(1, (_next(annotated, i) - number) // (_next_shot(annotated, i) - i))
            shown = list(range(number, number + min(frames, room)))
        columns.append(Column(video.get(i, 999), shown))
        number = shown[-1] + 1
    return columns


def _next_shot(annotated, i: int) -> int:
    return min((shot for shot, found in annotated.items() if shot > i and found), default=10**6)


def _next(annotated, i: int) -> int:
    """The number below which unlisted shots before the next annotated one must stay."""
    following = _next_shot(annotated, i)
    return min(annotated[following]) - (following - i - 1) if following < 10**6 else 10**8


def write_v2(lists: Lists, root: Path, *, frames: int = 2, sorted_tree: bool = False) -> Path:
    """Write v2.2: flat class folders and Ranges, or the video/shot tree with GroundTruth in ``<root>-original``."""
    pictures = Pictures()
    original = root.with_name(f"{root.name}-original") if sorted_tree else root
    size_of = {video_of(image_id): size for image_id, size in lists.sizes.items()}
    for name in sorted({video.split("/")[0] for video in lists.splits}):
        columns = plan_v2(lists, name, frames=frames)
        truth = {"train": [], "test": []}
        for i, column in enumerate(columns):
            video = f"{name}/video-{column.video:04d}"
            folder = root / video / f"shot-{i:06d}" if sorted_tree else root / name
            for number in column.frames:
                pictures.put(folder / f"{number:08d}.jpg", name, size_of.get(video, TRAIN_SIZE))
                boxes = lists.boxes.get(f"{video}/shot-{i:06d}/{number:08d}.jpg")
                if boxes is None and lists.splits.get(video) == "train" and number == column.frames[0]:
                    boxes = [[1, 1, 20, 30]]
                if boxes is not None:
                    part = "test" if lists.splits[video] == "test" else "train"
                    truth[part].append((f"{name}{number:08d}", boxes))
        if not sorted_tree:
            write_ranges(root, name, [(c.frames[0], c.frames[-1], c.video) for c in columns])
        write_truth(original, name, truth["train"], truth["test"])
    return root


def write_ranges(root: Path, name: str, columns) -> None:
    (root / "Ranges").mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(root / "Ranges" / f"ranges_{name}.mat", {"ranges": np.array(columns, dtype=np.float64).T})


def write_truth(root: Path, name: str, train, test) -> None:
    """GroundTruth of a class: struct arrays of frame name and boxes."""
    folder = root / "GroundTruth" / name
    folder.mkdir(parents=True, exist_ok=True)
    for word, frames in (("Training", train), ("Test", test)):
        structs = np.empty((1, len(frames)), dtype=[("im", object), ("bb", object)])
        for i, (frame, boxes) in enumerate(frames):
            structs[0, i] = (frame, np.array(boxes, dtype=np.int32).reshape(-1, 4))
        scipy.io.savemat(folder / f"bb_gt{word}_{name}.mat", {f"bb_gt{word}": structs})


def write_small_lists(folder: Path, version: str, classes=("bird", "cat")) -> Path:
    """Write lists of two classes: per class 2 training videos of 2 shots, 1 validation and 1 test video."""
    rows: dict[tuple[str, str], list[str]] = {(s, f): [] for s in SPLITS for f in ("ids", "labels", "sizes", "boxes")}
    for name in classes:
        for number, split in ((1, "val"), (2, "test"), (3, "train"), (4, "train")):
            for shot in (2 * number - 2, 2 * number - 1):
                frame = 10 * shot + 1
                place = f"{name}/data/{number:04d}/shots/{shot:03d}" if version == "v1.0" else ""
                place = place or f"{name}/video-{number:04d}/shot-{shot:06d}"
                file = f"frame{1 + shot % 2:04d}.jpg" if version == "v1.0" else f"{frame:08d}.jpg"
                key = place if split == "train" else f"{place}/{file}"
                rows[split, "ids"].append(key)
                rows[split, "labels"].append(f"{key},{CLASSES.index(name)}")
                if split != "train":
                    rows[split, "sizes"].append(f"{key},64,48")
                    rows[split, "boxes"] += [f"{key},{8 + shot},5,40,44"] + [f"{key},1,2,9,9"] * (shot % 2)
    names = {"ids": "image_ids", "labels": "class_labels", "sizes": "image_sizes", "boxes": "localization"}
    for (split, kind), lines in rows.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        (folder / split / f"{names[kind]}.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", choices=("v1.0", "v2.2", "v2.2-sorted"))
    parser.add_argument("lists", type=Path, help="folder with train, val and test")
    parser.add_argument("output", type=Path, help="folder of the tree; must not exist")
    parser.add_argument("--frames", type=int, default=3, help="frames per training shot")
    parser.add_argument("--classes", default=",".join(CLASSES), help="comma-separated")
    options = parser.parse_args()
    options.output.mkdir(parents=True)
    lists = read_lists(options.lists, options.classes.split(","))
    if options.version == "v1.0":
        write_v1(lists, options.output, frames=options.frames)
    else:
        write_v2(lists, options.output, frames=options.frames, sorted_tree=options.version == "v2.2-sorted")


if __name__ == "__main__":
    main()
