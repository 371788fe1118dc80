"""The row of a frame, the same in every box table and in the output of ``tcam stream``.

Columns: ``video, frame, time_s, width, height, class, class_score, x0, y0, x1, y1, score, threshold, track_id,
status``. Frames count from 0. Boxes are half-open, in pixels of the original frame as it is displayed, rounded to
1/100 pixel. ``status`` is ``ok``, or ``none`` where nothing was found; the coordinates are then missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tcam.types import Box, FrameBox, Size

Cell = str | int | float | None
Row = tuple[Cell, ...]
"""The values of a frame, in the order of ``COLUMNS``."""

COLUMN_TYPES: Final[Mapping[str, type]] = {
    "video": str,
    "frame": int,
    "time_s": float,
    "width": int,
    "height": int,
    "class": str,
    "class_score": float,
    "x0": float,
    "y0": float,
    "x1": float,
    "y1": float,
    "score": float,
    "threshold": float,
    "track_id": int,
    "status": str,
}
COLUMNS: Final = tuple(COLUMN_TYPES)


def row_of(found: FrameBox, *, size: Size, threshold: float) -> Row:
    """Return the row of a frame.

    Args:
        found: the frame and its box.
        size: (height, width) of the original frame.
        threshold: of the map.
    """
    height, width = size
    return (
        printable(found.video_id),
        found.frame_index,
        round(found.time_s, 6),
        width,
        height,
        printable(found.class_name),
        round(found.class_score, 6),
        *(edges(found.box) or (None,) * 4),
        round(found.score, 6),
        round(threshold, 6),
        found.track_id,
        "none" if found.box is None else "ok",
    )


def edges(box: Box | None) -> Sequence[float] | None:
    """Return the edges of a box, rounded as in every row; None where there is no box."""
    return None if box is None else [round(edge, 2) for edge in box]


def as_dict(row: Row) -> dict[str, Cell]:
    """Return a row as a mapping from column to value."""
    return dict(zip(COLUMNS, row, strict=True))


def printable(name: str) -> str:
    """Escape the bytes of a file name that is not UTF-8, so that every format can hold it."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
