"""Read tables of boxes: corners, or a position with width and height, in the units that the table names."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tcam.errors import DataError
from tcam.types import Size
from tcam.video.data_folder.tables import CLIP_COLUMNS, Columns, Row, Table, as_frame, find_columns, read_table

Units = Literal["pixels", "pixels-from-1", "relative", "percent"]
"""Units of sides: pixels from 0, half-open (ours); pixels from 1, where x1 and y1 are the last ones inside
(MATLAB, VOC); 0..1 of the frame; 0..100 of it."""
UNITS: Final[tuple[Units, ...]] = ("pixels", "pixels-from-1", "relative", "percent")

Corners = tuple[float, float, float, float]
"""``x0, y0, x1, y1``."""
_Kind = Literal["corners", "sized", "centred"]

_CORNERS: Final = ("x0 y0 x1 y1", "x1 y1 x2 y2", "xmin ymin xmax ymax", "left top right bottom")
_ORIGINS: Final = ("x y", "x0 y0", "x1 y1", "xmin ymin", "left top")
_CENTRE: Final = "cx cy"
_EXTENTS: Final = ("w h", "width height")
_LAYOUTS: Final[tuple[tuple[_Kind, list[str]], ...]] = (
    *(("corners", names.split()) for names in _CORNERS),
    *(("sized", f"{names} {extent}".split()) for names in _ORIGINS for extent in _EXTENTS),
    *(("centred", f"{_CENTRE} {extent}".split()) for extent in _EXTENTS),
)
"""Accepted names of the four columns of a box; if there is ``w``, ``width`` means the width of the frame."""
_SIZES: Final = frozenset(" ".join(_EXTENTS).split())
_SIDES: Final = tuple(dict.fromkeys(name for _, names in _LAYOUTS for name in names))
_CENTRE_NAMES: Final = ("{}_center", "center_{}", "{}_centre", "centre_{}", "{}c")

BOX_COLUMNS: Final[Columns] = {
    "video": tuple(name for name in CLIP_COLUMNS["video"] if name not in ("name", "id")),  # often the object's here
    "frame": ("frame_index", "frame_id", "frame_number", "frame_no", "frame_num"),
    "units": ("unit",),
    **{
        side: (
            *(name.format(side[1]) for name in _CENTRE_NAMES if side in _CENTRE.split()),
            *(f"{prefix}_{side}" for prefix in ("bbox", "box", "bb")),
        )
        for side in _SIDES
    },
}
"""Columns of a table of boxes, with the sides of all layouts."""


@dataclass(frozen=True, slots=True)
class BoxRow:
    """One row of a table of boxes; ``corners`` are in ``units``, or None if the frame holds no object.

    ``units`` is None if the row does not name them.
    """

    row: Row
    frame: int
    corners: Corners | None
    units: Units | None


@dataclass(frozen=True, slots=True)
class BoxTable:
    """The boxes of a table; ``to_pixels`` converts them once the size of a video's frames is known.

    ``looks_relative``: there are boxes without units, and all their sides lie within 0..1.
    """

    table: Table
    boxes: tuple[BoxRow, ...]
    looks_relative: bool


def read_box_table(path: Path, *, units: Units | None = None, of_tags: bool = False) -> BoxTable:
    """Read the boxes of a table in any of the layouts and units.

    Args:
        path: of the table.
        units: of the rows that do not name them; None leaves them open.
        of_tags: also read the column class, which says the tag of a box.

    Raises:
        DataError: the columns video, frame or those of one layout are missing, or a row is not a box.
    """
    layout = _find_layout(find_columns(path, BOX_COLUMNS).keys())
    if layout is None:
        table = read_table(path, BOX_COLUMNS, required=("video", "frame"))
        raise DataError(_describe_layouts(table))
    kind, names = layout
    needed = ("video", "frame", *names)
    columns = {name: BOX_COLUMNS[name] for name in (*needed, "units")}
    if of_tags:
        columns["class"] = CLIP_COLUMNS["class"]
    table = read_table(path, columns, required=needed)
    boxes: list[BoxRow] = []
    unnamed: list[float] = []
    for row in table.rows:
        known = _as_units(row) or units
        sides = _as_sides(row, names, decimal_comma=table.delimiter != ",")
        boxes.append(BoxRow(row, as_frame(row), sides and _as_corners(row, kind, names, sides, known), known))
        if sides and known is None:
            unnamed.extend(sides)
    return BoxTable(table, tuple(boxes), bool(unnamed) and min(unnamed) >= 0 and max(unnamed) <= 1)


def to_pixels(corners: Corners, units: Units, size: Size) -> Corners:
    """Return corners in our pixels (from 0, half-open) of a frame of ``size`` (height, width)."""
    x0, y0, x1, y1 = corners
    if units == "pixels-from-1":
        return x0 - 1, y0 - 1, x1, y1
    if units == "pixels":
        return corners
    whole = 1 if units == "relative" else 100
    height, width = size
    return x0 * width / whole, y0 * height / whole, x1 * width / whole, y1 * height / whole


def _find_layout(names: Collection[str]) -> tuple[_Kind, list[str]] | None:
    """Return the layout that has all its columns and uses every position column; None if two layouts are mixed."""
    places = {name for name in names if name in _SIDES} - _SIZES
    fitting = (item for item in _LAYOUTS if set(item[1]) <= set(names) and set(item[1]) - _SIZES == places)
    return next(fitting, None)


def _as_units(row: Row) -> Units | None:
    text = row["units"]
    units = next((name for name in UNITS if name == text.lower()), None)
    if text and units is None:
        raise DataError(f"{row.where}: units must be one of {', '.join(UNITS)}, got {text!r}")
    return units


def _as_sides(row: Row, names: Sequence[str], *, decimal_comma: bool) -> Corners | None:
    """Return the four numbers of a row as written; None if all are empty."""
    texts = [row[name].replace(",", ".") if decimal_comma else row[name] for name in names]
    if not any(texts):
        return None
    try:
        a, b, c, d = map(float, texts)
    except ValueError as error:
        raise DataError(f"{row.where}: expected a box with x0 < x1 and y0 < y1 ({error})") from error
    return a, b, c, d


def _as_corners(row: Row, kind: _Kind, names: Sequence[str], sides: Corners, units: Units | None) -> Corners:
    """Convert the sides of a layout to corners, in the same units."""
    last = 1 if units == "pixels-from-1" else 0  # the last of w pixels from x on is x + w - 1
    x0, y0, x1, y1 = sides
    if kind == "centred":
        x0, y0 = x0 - (x1 - last) / 2, y0 - (y1 - last) / 2
    if kind != "corners":
        x1, y1 = x0 + x1 - last, y0 + y1 - last
    if x0 < x1 + last and y0 < y1 + last and all(map(math.isfinite, (x0, y0, x1, y1))):
        return x0, y0, x1, y1
    found = ", ".join(f"{name} {row[name]}" for name in names)
    hint = ""
    if kind == "corners" and x1 > 0 and y1 > 0:
        hint = f"; if {names[2]} and {names[3]} are its width and height, call them w and h"
    raise DataError(f"{row.where}: expected a box with x0 < x1 and y0 < y1 (got {found}{hint})")


def _describe_layouts(table: Table) -> str:
    layouts = ", ".join(names.replace(" ", ",") for names in (*_CORNERS, f"x y {_EXTENTS[0]}", f"cx cy {_EXTENTS[0]}"))
    found = ", ".join((*table.columns.values(), *table.unused))[:200]
    return f"{table.path}: expected the columns video, frame and those of one layout ({layouts}), found {found}"
