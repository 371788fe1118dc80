"""True boxes and masks of a data folder, joined to the videos that can be used."""

from __future__ import annotations

from tcam.errors import VideoError
from tcam.types import FrameTruth, VideoIndex
from tcam.video.folders import FolderSource
from tcam.video.index import clean_box
from tcam.video.masks import mask_box, read_mask


def collect_truth(
    source: FolderSource, index: VideoIndex
) -> tuple[tuple[FrameTruth, ...], int, tuple[tuple[str, str], ...]]:
    """Give the boxes of the videos kept, clipped; how many frames lie past the end of their video; what is left out.

    The last are pairs of video id and reason.

    A frame with a mask and no row in the table of boxes has the box around its mask.
    """
    records = {record.video_id: record for record in index.records}
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
            boxes = () if around is None else (around,)
        cleaned = [(box, clean_box(tuple(box), record.size)) for box in boxes]
        inside = tuple(clean for _, clean in cleaned if clean is not None)
        if inside or not boxes:
            truth.append(FrameTruth(video_id, frame, record.label, inside, str(mask.resolve()) if mask else ""))
        outside += [
            (video_id, f"box {tuple(box)} of frame {frame} lies outside the image; it is left out")
            for box, clean in cleaned
            if clean is None
        ]
    return tuple(truth), dropped, tuple(outside)
