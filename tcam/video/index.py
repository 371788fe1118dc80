"""Write, read and check the index of a data set (JSON) and its boxes (CSV)."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path
from typing import Final, TextIO, get_args

from tcam.errors import DataError
from tcam.files import replacing
from tcam.types import SPLITS, Box, Decoder, FrameRun, FrameTruth, Shot, Size, VideoIndex, VideoRecord
from tcam.video.data_folder.tables import Row, as_frame, read_table

INDEX_VERSION: Final = 1
_TRUTH_COLUMNS: Final = ("video", "frame", "x0", "y0", "x1", "y1")


def validate_index(index: VideoIndex) -> None:
    """Check that an index is consistent.

    Raises:
        DataError: it is not; the message names the first video concerned.
    """
    if index.version != INDEX_VERSION:
        raise DataError(f"expected an index of version {INDEX_VERSION}, got {index.version}: run prepare again")
    if len(set(index.class_names)) != len(index.class_names) or not index.class_names:
        raise DataError(f"expected distinct class names, got {list(index.class_names)}")
    seen: set[str] = set()
    for record in index.records:
        problem = _find_problem(record, len(index.class_names))
        if record.video_id in seen:
            problem = "it appears twice"
        if problem:
            raise DataError(f"the index is not valid at video {record.video_id!r}: {problem}; run prepare again")
        seen.add(record.video_id)


def _find_problem(record: VideoRecord, num_classes: int) -> str | None:
    shots, runs = record.shots, record.runs
    checks = (
        (not record.video_id, "it has no name"),
        (not 0 <= record.label < num_classes, f"label {record.label} is not one of {num_classes} classes"),
        (not all(0 <= label < num_classes for label in record.also), f"other labels {list(record.also)}"),
        (record.num_frames < 1, f"{record.num_frames} frames"),
        (min(record.size) < 1, f"size {record.size}"),
        (not record.fps > 0, f"{record.fps} frames per second"),
        (record.split not in SPLITS, f"split {record.split!r} is not one of {', '.join(SPLITS)}"),
        (record.decoder not in get_args(Decoder), f"decoder {record.decoder!r}"),
        (record.rotation not in (0, 90, 180, 270), f"rotation {record.rotation}"),
        (not shots, "it has no shots"),
        (any(shot.stop > record.num_frames for shot in shots), f"a shot ends after frame {record.num_frames - 1}"),
        (any(b.start < a.stop for a, b in pairwise(shots)), "its shots overlap or are unordered"),
        (bool(runs) and sum(run.count for run in runs) != record.num_frames, "its image files do not add up"),
        (bool(runs) and record.decoder != "frames", f"image files with the decoder {record.decoder!r}"),
    )
    return next((problem for wrong, problem in checks if wrong), None)


def has_several_tags(index: VideoIndex) -> bool:
    """Whether some training video has several tags, so that a classifier must tell for each tag whether it holds."""
    return any(record.also for record in index.of_split("train"))


def write_index(index: VideoIndex, path: Path) -> None:
    """Write a valid index as JSON, whole or not at all.

    Raises:
        DataError: the index is not valid, or the file cannot be written.
    """
    validate_index(index)
    lines = [json.dumps(_to_json(record), ensure_ascii=False) for record in index.records]
    names = json.dumps(list(index.class_names), ensure_ascii=False)
    body = ",\n    ".join(lines)
    with write_whole(path) as file:
        file.write(f'{{"version": {index.version}, "class_names": {names}, "records": [\n    {body}\n]}}\n')


def read_index(path: Path) -> VideoIndex:
    """Read an index written by ``write_index``.

    Raises:
        DataError: the file is missing, not such an index, of another version, or not valid.
    """
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the index {path} ({error.strerror}): run prepare first") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not an index of videos (not JSON: {error}): run prepare again") from error
    version = content.get("version") if isinstance(content, dict) else None
    if not isinstance(content, dict) or version != INDEX_VERSION:
        raise DataError(f"{path}: expected an index of version {INDEX_VERSION}, got {version!r}: run prepare again")
    try:
        records = tuple(_from_json(entry) for entry in content["records"])
        index = VideoIndex(tuple(str(name) for name in content["class_names"]), records, INDEX_VERSION)
        validate_index(index)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}): run prepare again") from error
    return index


def _to_json(record: VideoRecord) -> dict[str, object]:
    extra: dict[str, object] = {"runs": [list(astuple(run)) for run in record.runs]} if record.runs else {}
    extra |= {"also": list(record.also)} if record.also else {}
    return {
        "video_id": record.video_id,
        "path": record.path,
        "label": record.label,
        "num_frames": record.num_frames,
        "size": list(record.size),
        "fps": record.fps,
        "split": record.split,
        "shots": [[shot.start, shot.stop] for shot in record.shots],
        "decoder": record.decoder,
        "rotation": record.rotation,
        "cache_path": record.cache_path,
        **extra,
    }


def _from_json(entry: dict[str, object]) -> VideoRecord:
    values = dict(entry)
    shots, size = values.pop("shots"), values.pop("size")
    runs, also = values.pop("runs", []), values.pop("also", [])
    if not (isinstance(shots, list) and isinstance(runs, list) and isinstance(also, list)):
        raise ValueError("shots, runs and also must be lists")
    if not (isinstance(size, list) and len(size) == 2):
        raise ValueError("size must be a list of two numbers")
    for name in ("label", "num_frames", "rotation"):
        if not isinstance(values[name], int):
            raise ValueError(f"{name} must be a whole number, got {values[name]!r}")
    return VideoRecord(
        size=(int(size[0]), int(size[1])),
        shots=tuple(Shot(int(start), int(stop)) for start, stop in shots),
        runs=tuple(FrameRun(str(a), int(b), str(c), int(d), int(e)) for a, b, c, d, e in runs),
        also=tuple(int(label) for label in also),
        **values,  # type: ignore[arg-type]  # a wrong type or an unknown key is reported by read_index
    )


def write_truth(truth: Sequence[FrameTruth], path: Path) -> None:
    """Write boxes as CSV (video, frame, x0, y0, x1, y1, mask): a row per box; frames without boxes have an empty one.

    Raises:
        DataError: the file cannot be written.
    """
    with write_whole(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow((*_TRUTH_COLUMNS, "mask"))
        for frame in truth:
            rows = [[repr(side) for side in box] for box in frame.boxes] or [[""] * 4]
            table.writerows([frame.video_id, frame.frame_index, *sides, frame.mask] for sides in rows)


def clean_box(corners: Sequence[float], size: Size) -> Box | None:
    """Return a valid box from the corners of a data set: swapped corners are ordered, then clipped to the image.

    Args:
        corners: x0, y0, x1, y1; some are negative, swapped or outside the image (v1.0).
        size: (height, width) of the image.

    Returns:
        The box; None if no part of it is inside the image.
    """
    if not all(map(math.isfinite, corners)):
        return None
    (x0, x1), (y0, y1) = sorted((corners[0], corners[2])), sorted((corners[1], corners[3]))
    x0, x1 = max(x0, 0.0), min(x1, float(size[1]))
    y0, y1 = max(y0, 0.0), min(y1, float(size[0]))
    return Box(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def read_truth(path: Path, index: VideoIndex) -> tuple[FrameTruth, ...]:
    """Read boxes written by ``write_truth``; the class comes from the index.

    Returns:
        One entry per annotated frame, in order of video and frame.

    Raises:
        DataError: the file is missing or damaged, or names a video that the index does not hold.
    """
    labels = {record.video_id: record.label for record in index.records}
    boxes: dict[tuple[str, int], list[Box]] = {}
    masks: dict[tuple[str, int], str] = {}
    for row in read_table(path, dict.fromkeys((*_TRUTH_COLUMNS, "mask"), ()), required=_TRUTH_COLUMNS).rows:
        video = row["video"]
        if video not in labels:
            raise DataError(f"{row.where}: video {video!r} is not in the index of {len(labels)} videos")
        key = video, as_frame(row)
        boxes.setdefault(key, []).extend(_as_boxes(row))
        masks[key] = row["mask"]
    return tuple(FrameTruth(*key[:2], labels[key[0]], tuple(found), masks[key]) for key, found in sorted(boxes.items()))


def _as_boxes(row: Row) -> tuple[Box, ...]:
    """Return the box of a row; none where all four sides are left empty: the frame holds no object."""
    sides = [row[side] for side in _TRUTH_COLUMNS[2:]]
    try:
        return (Box(*map(float, sides)),) if any(sides) else ()
    except ValueError as error:
        raise DataError(f"{row.where}: expected a box with x0 < x1 and y0 < y1 ({error})") from error


@contextmanager
def write_whole(path: Path) -> Iterator[TextIO]:
    """Open a text file that appears under its name only if the block ends without an error.

    Raises:
        DataError: it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file
