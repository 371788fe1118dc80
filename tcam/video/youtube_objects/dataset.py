"""YouTube-Objects v1.0 and v2.2 on disk -> index and boxes, read in place.

A video is many shots, each a run of numbered images. Sources: Prest et al., CVPR 2012 (v1.0); Kalogeiton et al., PAMI
2016 (v2.2); the protocol is that of TCAM (arXiv 2208.14542) and CoLo-CAM (arXiv 2303.09044).

Corners are used unchanged, with x1 and y1 as the edges of a half-open box, as in the published results. In v1.0 they
are positions between pixels. In v2.2 they are the first and last pixel, counted from 1; counted from 0, boxes would
begin one pixel earlier, but the published results do not subtract that pixel. Frame ranges of v2.2 include both ends.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tcam.errors import DataError, VideoError
from tcam.types import Box, FrameRun, FrameTruth, Shot, Size, Split, VideoIndex, VideoRecord
from tcam.video.frame_files import FrameFiles
from tcam.video.index import clean_box
from tcam.video.pictures.image import image_size
from tcam.video.pixels import FOLDER_FPS
from tcam.video.youtube_objects.layout import (
    FrameKey,
    RawBox,
    VideoFolder,
    YoutubeTree,
    find_youtube_objects,
    read_tree,
)
from tcam.video.youtube_objects.splits import SplitLists, draw_splits, read_split_lists

_NO_BOX: Final = (0.0, 0.0, 0.0, 0.0)
"""Marks a frame without ground truth in the lists."""
_SPLIT_ORIGIN: Final = {
    "v1.0": "test as in sets/test.txt, 5 annotated training videos per class drawn for validation",
    "v2.2": "by its boxes, the first 3 training videos per class for validation",
}


@dataclass(frozen=True, slots=True)
class YoutubeObjects:
    """The data set as read: ``warnings`` and ``failures`` are (video id, problem); videos of ``failures`` are left out.

    ``origin`` describes where the splits came from.
    """

    index: VideoIndex
    truth: tuple[FrameTruth, ...]
    warnings: tuple[tuple[str, str], ...]
    failures: tuple[tuple[str, str], ...]
    origin: str


def read_youtube_objects(folder: Path, *, splits: Path | None = None) -> YoutubeObjects:
    """Read a tree of YouTube-Objects, any number of its classes; opens one image per video, for its size.

    Args:
        folder: holds the class folders, or a folder such as ``YouTube-Objects-v1.0`` that does.
        splits: folder of the official lists; they then define splits and boxes, and only listed shots are trained on.

    Raises:
        DataError: there is no such tree, a file of it is damaged, or the lists are of another version.
    """
    found = find_youtube_objects(Path(folder))
    if found is None:
        raise DataError(f"{folder} holds no YouTube-Objects: expected <class>/data and <class>/sets, or Ranges")
    root, version = found
    lists = None if splits is None else read_split_lists(splits)
    if lists is not None and lists.version != version:
        raise DataError(f"{root} is YouTube-Objects {version}, but the lists of {splits} are of {lists.version}")
    tree = read_tree(root, version, with_boxes=lists is None)
    if not tree.videos:
        raise DataError(f"{root} holds no videos of YouTube-Objects {version}: unpack its classes again")
    split_of = draw_splits(tree) if lists is None else lists.splits
    origin = _SPLIT_ORIGIN[version] if lists is None else f"official lists in {splits}"
    reader = _Indexer(tree, split_of, lists)
    for video in sorted(tree.videos, key=lambda video: video.video_id):
        reader.add(video)
    return reader.result(f"YouTube-Objects {version}, {origin}")


class _Indexer:
    """Builds records and ground truth, video by video."""

    def __init__(self, tree: YoutubeTree, split_of: Mapping[str, Split], lists: SplitLists | None) -> None:
        self._split_of, self._lists = split_of, lists
        present = {video.class_name for video in tree.videos}
        self._class_names = tuple(sorted(present))
        self._boxes: dict[str, dict[FrameKey, list[RawBox]]] = {}
        for key, boxes in (tree.boxes if lists is None else lists.boxes).items():
            self._boxes.setdefault(key[0], {})[key] = boxes
        self._records: list[VideoRecord] = []
        self._truth: list[FrameTruth] = []
        self._warnings, self._failures = list(tree.warnings), list[tuple[str, str]]()
        if lists is not None:
            known = {video.video_id for video in tree.videos}
            missing = [v for v in split_of if v not in known and v.split("/")[0] in present]
            self._warnings += [(v, "in the split lists but not on the disk; left out") for v in sorted(missing)]

    def add(self, video: VideoFolder) -> None:
        """Add a video if it has a split."""
        split = self._split_of.get(video.video_id)
        if split is None:
            return
        shots = self._used_shots(video, split)
        runs = tuple(run for found in shots.values() for run in found)
        try:
            size = _find_size(video.path, shots)
        except VideoError as error:
            self._failures.append((video.video_id, str(error)))
            return
        record = VideoRecord(
            video_id=video.video_id,
            path=os.path.abspath(video.path),  # noqa: PTH100  # keeps links as they are
            label=self._class_names.index(video.class_name),
            num_frames=sum(run.count for run in runs),
            size=size,
            fps=FOLDER_FPS,
            split=split,
            shots=_cut(shots),
            decoder="frames",
            runs=runs,
        )
        self._records.append(record)
        self._add_truth(record, shots)

    def _used_shots(self, video: VideoFolder, split: Split) -> dict[str, tuple[FrameRun, ...]]:
        """Return the shots that hold frames; for training videos, only those in the lists."""
        shots = {name: runs for name, runs in video.shots.items() if runs}
        if self._lists is None or split != "train":
            return shots
        listed = {shot for video_id, shot in self._lists.shots if video_id == video.video_id}
        missing = sorted(listed - shots.keys())
        if missing:
            self._warn(video.video_id, f"{len(missing)} listed shots hold no frames, the first is {missing[0]}")
        return {name: runs for name, runs in shots.items() if name in listed}

    def _add_truth(self, record: VideoRecord, shots: Mapping[str, tuple[FrameRun, ...]]) -> None:
        absent = []
        for (_, shot, number), raw in sorted(self._boxes.get(record.video_id, {}).items()):
            frame = _find_frame(shots, shot, number)
            if frame is None:
                absent.append(f"{shot}/{number}")
                continue
            boxes = tuple(box for corners in raw if (box := self._clean(corners, record, f"{shot}/{number}")))
            if boxes:
                self._truth.append(FrameTruth(record.video_id, frame, record.label, boxes))
        if absent:
            self._warn(record.video_id, f"{len(absent)} annotated frames have no image, the first is {absent[0]}")
        sizes = self._lists.sizes if self._lists else {}
        other = sorted({size for key, size in sizes.items() if key[0] == record.video_id and size != record.size})
        if other:
            self._warn(record.video_id, f"frames are {record.size} (height, width), the lists say {other[0]}")

    def _clean(self, corners: RawBox, record: VideoRecord, frame: str) -> Box | None:
        box = clean_box(corners, record.size)
        if box is None and corners != _NO_BOX:
            self._warn(record.video_id, f"box {corners} of frame {frame} lies outside the image; it is left out")
        return box

    def _warn(self, video_id: str, text: str) -> None:
        self._warnings.append((video_id, text))

    def result(self, origin: str) -> YoutubeObjects:
        index = VideoIndex(self._class_names, tuple(self._records))
        return YoutubeObjects(index, tuple(self._truth), tuple(self._warnings), tuple(self._failures), origin)


def _find_size(folder: Path, shots: Mapping[str, Sequence[FrameRun]]) -> Size:
    """Return the size of the first readable image, trying one per shot."""
    problem = VideoError(f"{folder} holds no frames of this video: unpack its class again")
    for runs in shots.values():
        try:
            return image_size(FrameFiles(folder, runs)[0])
        except VideoError as error:
            problem = error
    raise problem


def _cut(shots: Mapping[str, Sequence[FrameRun]]) -> tuple[Shot, ...]:
    cut, start = [], 0
    for runs in shots.values():
        stop = start + sum(run.count for run in runs)
        cut.append(Shot(start, stop))
        start = stop
    return tuple(cut)


def _find_frame(shots: Mapping[str, Sequence[FrameRun]], wanted: str, number: int) -> int | None:
    """Return the position in the video of the frame with this number in its name; None if there is no such image."""
    start = 0
    for shot, runs in shots.items():
        for run in runs:
            if shot == wanted and run.first <= number < run.first + run.count:
                return start + number - run.first
            start += run.count
    return None
