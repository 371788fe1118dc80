"""Ground-truth boxes and masks of a data folder, matched to its usable videos."""

from __future__ import annotations

from tcam.errors import DataError, VideoError
from tcam.types import FrameTruth, VideoIndex, VideoRecord
from tcam.video.data_folder.box_columns import to_pixels
from tcam.video.data_folder.clip_tables import BOXES, BoxConvention, TableBox
from tcam.video.data_folder.masks import mask_box, read_mask
from tcam.video.data_folder.scan import FolderSource
from tcam.video.index import clean_box


def collect_truth(
    source: FolderSource, index: VideoIndex, convention: BoxConvention
) -> tuple[tuple[FrameTruth, ...], int, tuple[tuple[str, str], ...]]:
    """Return the boxes of usable videos, clipped; the number of frames past the end of their video; what is left out.

    The last are pairs of video id and reason. A frame with a mask but no row in the table of boxes gets the box around
    its mask.

    Raises:
        DataError: frames seem to be counted from 1, and ``convention`` does not say so.
    """
    records = {record.video_id: record for record in index.records}
    if convention.first_frame is None:
        _refuse_frames_from_1(source, records)
    truth, dropped, outside = [], 0, []
    for video_id, frame in sorted({*source.boxes, *source.masks}):
        record = records.get(video_id)
        if record is None or frame >= record.num_frames:
            dropped += record is not None
            continue
        mask, boxes = source.masks.get((video_id, frame)), source.boxes.get((video_id, frame))
        if boxes is None:
            try:
                around = mask_box(read_mask(source.masks[video_id, frame], record.size))
            except VideoError as error:
                outside.append((video_id, f"{error}; frame {frame} is not judged"))
                continue
            boxes = () if around is None else (TableBox((around.x0, around.y0, around.x1, around.y1), "pixels"),)
        corners = [to_pixels(box.corners, box.units, record.size) for box in boxes]
        cleaned = [(box, clean_box(box, record.size)) for box in corners]
        inside = tuple(clean for _, clean in cleaned if clean is not None)
        if inside or not boxes:
            truth.append(FrameTruth(video_id, frame, record.label, inside, str(mask.resolve()) if mask else ""))
        outside += [
            (video_id, f"box {box} of frame {frame} lies outside the image; it is left out")
            for box, clean in cleaned
            if clean is None
        ]
    return tuple(truth), dropped, tuple(outside)


def _refuse_frames_from_1(source: FolderSource, records: dict[str, VideoRecord]) -> None:
    """Raise if frames seem to be counted from 1: none is 0, and some are just past the last one, none beyond that."""
    frames = [(video_id, frame) for video_id, frame in source.boxes if video_id in records]
    past = sorted(key for key in frames if key[1] == records[key[0]].num_frames)
    beyond = any(frame > records[video_id].num_frames for video_id, frame in frames)
    if past and not beyond and all(frame for _, frame in frames):
        video_id, frame = past[0]
        raise DataError(
            f"{source.root / BOXES}: frames seem to be counted from 1: there is no frame 0, but a frame {frame} of "
            f"{video_id}, which has {frame} frames; set data.first_frame=1 (or 0, which drops that box)"
        )
