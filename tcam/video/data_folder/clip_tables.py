"""The tables of a data folder, matched to its videos: tags and splits (``clips.csv``), boxes (``boxes.csv``)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tcam.errors import DataError
from tcam.types import Split
from tcam.video.data_folder.box_columns import Corners, Units, read_box_table
from tcam.video.data_folder.names import VideoNames
from tcam.video.data_folder.tables import CLIP_COLUMNS, Row, Table, as_split, find_columns, read_table

CLIPS: Final = "clips.csv"
BOXES: Final = "boxes.csv"
_TABLE_SUFFIXES: Final = (".csv", ".tsv")

VideosByTag = Mapping[str, Mapping[str, str]]
"""For each video below the data folder, the id of each of its tags; a video with one tag has its path as id."""

Notes = tuple[tuple[str, str], ...]
"""Remarks on tables for the user: the table's name, and a line."""


@dataclass(frozen=True, slots=True)
class BoxConvention:
    """How a table of boxes counts, if it does not say so itself; None means to find out.

    ``first_frame`` is the number of the first frame, 0 or 1; ``units`` are those of the sides.
    """

    units: Units | None = None
    first_frame: int | None = None


FIND_OUT: Final = BoxConvention()


@dataclass(frozen=True, slots=True)
class TableBox:
    """One box of a table, in its units."""

    corners: Corners
    units: Units


@dataclass(frozen=True, slots=True)
class ClipRow:
    """What a table says about a video; ``where`` names file and line, ``also`` are its tags besides the first."""

    where: str
    class_name: str | None
    split: Split | None
    also: tuple[str, ...] = ()

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags, in the order of the table."""
        return () if self.class_name is None else (self.class_name, *self.also)


def find_clip_table(root: Path, *, flat: bool) -> Table | None:
    """Read the table of tags and splits: clips.csv, or the only table in the folder with a video and a class column.

    Args:
        root: the data folder.
        flat: there are no class folders, so the table may also lie beside the data folder.

    Raises:
        DataError: the table cannot be read, or several tables qualify.
    """
    path = root / CLIPS
    if not path.exists():
        places = [root, root.absolute().parent] if flat else [root]
        found = next((tables for tables in map(_tables_of_tags, places) if tables), [])
        if len(found) > 1:
            names = ", ".join(table.name for table in found)
            raise DataError(f"{found[0].parent} holds several tables of tags ({names}): call the right one {CLIPS}")
        if not found:
            return None
        path = found[0]
    columns = find_columns(path, CLIP_COLUMNS)
    required = ("video",) if "split" in columns and "class" not in columns else ("video", "class")
    return read_table(path, CLIP_COLUMNS, required=required)


def _tables_of_tags(folder: Path) -> list[Path]:
    tables = (path for path in sorted(folder.iterdir()) if path.suffix.lower() in _TABLE_SUFFIXES)
    wanted = {"video", "class"}
    return [path for path in tables if path.name != BOXES and wanted <= find_columns(path, CLIP_COLUMNS).keys()]


def read_clips(table: Table, root: Path, video_ids: Sequence[str]) -> tuple[dict[str, ClipRow], Notes]:
    """Match a table of tags to the videos; a video with several tags has a row for each.

    Raises:
        DataError: a row names an unknown video or split, or two rows of a video contradict each other.
    """
    names, twice = VideoNames(root, video_ids), 0
    rows: dict[str, ClipRow] = {}
    for row in table.rows:
        video_id = _find_video(row, names, root, video_ids)
        found = ClipRow(row.where, row["class"] or None, as_split(row))
        before = rows.setdefault(video_id, found)
        if before.split != found.split or (before.class_name is None) != (found.class_name is None):
            raise DataError(
                f"{row.where}: {video_id} is there twice: class {found.class_name!r}, split {found.split!r}, but "
                f"{before.class_name!r}, {before.split!r} in {before.where.rpartition(', ')[2]}; keep one of them"
                + ("" if before.class_name == found.class_name else ", or give each of its tags the same split")
            )
        if found.class_name is not None and found.class_name not in before.tags:
            rows[video_id] = replace(before, also=(*before.also, found.class_name))
        else:
            twice += before is not found
    notes = [(table.path.name, f"{twice} videos are there twice, alike")] if twice else []
    return rows, (*notes, *_unused(table))


def read_boxes(
    path: Path, root: Path, videos: VideosByTag, convention: BoxConvention
) -> tuple[dict[tuple[str, int], tuple[TableBox, ...]], Notes]:
    """Match the table of boxes, if there is one, to the videos; the returned frames count from 0.

    Raises:
        DataError: the table cannot be read, a row names an unknown video or not the tag that it is of, or the sides
            look relative to the frame and no units are given.
    """
    if not path.exists():
        return {}, ()
    of_tags, names = any(len(tags) > 1 for tags in videos.values()), VideoNames(root, list(videos))
    found = read_box_table(path, units=convention.units, of_tags=of_tags)
    if found.looks_relative:
        raise DataError(
            f"{path}: all sides lie within 0..1, so they seem to be shares of the frame: add a column units "
            "to it (relative, or pixels if they are), or set data.units=relative"
        )
    boxes: dict[tuple[str, int], list[TableBox]] = {}
    for box in found.boxes:
        frame = box.frame - (convention.first_frame or 0)
        if frame < 0:
            raise DataError(f"{box.row.where}: frame {box.frame}, but data.first_frame says that they begin with 1")
        units = box.units or "pixels"
        video = _find_video(box.row, names, root, list(videos))
        kept = boxes.setdefault((_of_tag(box.row, video, videos[video]), frame), [])
        kept += [] if box.corners is None else [TableBox(box.corners, units)]
    return {key: tuple(kept) for key, kept in boxes.items()}, _unused(found.table)


def _of_tag(row: Row, video: str, tags: Mapping[str, str]) -> str:
    """Return the id of the tag that a box is of; a video with one tag needs none named."""
    tag = row["class"]
    if tag in tags or (not tag and len(tags) == 1):
        return tags[tag] if tag else next(iter(tags.values()))
    found = f"class {tag!r}" if tag else "no class"
    raise DataError(f"{row.where}: a box of {video} is of one of its tags ({few(tags)}), found {found} for it")


def few(names: Collection[str]) -> str:
    """Return the first names of many as text."""
    shown = ", ".join(repr(name) for name in sorted(names)[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _unused(table: Table) -> Notes:
    return ((table.path.name, f"columns that nothing reads: {', '.join(table.unused)}"),) if table.unused else ()


def _find_video(row: Row, names: VideoNames, root: Path, video_ids: Sequence[str]) -> str:
    try:
        found = names.find(row["video"])
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from None
    if found is None:
        raise DataError(f"{row.where}: video {row['video']!r} is not in {root}, which holds {few(video_ids)}")
    return found
