"""Read small CSV tables as text, with the file and line at hand for messages."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tcam.errors import DataError
from tcam.types import Box


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: ``row["column"]`` is its text, stripped; ``where`` names file and line."""

    where: str
    values: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values.get(column, "")


def read_rows(path: Path, *, required: Sequence[str]) -> Iterator[Row]:
    """Give the rows of a CSV file as text (a class ``007`` or ``no`` stays what it is), without the empty ones.

    Raises:
        DataError: the file cannot be read or is not a table with the required columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            columns = [name.strip() for name in table.fieldnames or ()]
            missing = [name for name in required if name not in columns]
            if missing:
                raise DataError(
                    f"{path}: expected the columns {', '.join(required)}, found {', '.join(columns)[:120] or 'nothing'}"
                )
            table.fieldnames = columns
            for line in table:
                values = {k: v.strip() for k, v in line.items() if isinstance(k, str) and isinstance(v, str)}
                if any(values.values()):
                    yield Row(f"{path}, line {table.line_num}", values)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV table in UTF-8 ({error})") from error


def as_frame(row: Row) -> int:
    """Give the ``frame`` of a row, counted from 0.

    Raises:
        DataError: it is not a whole number from 0 on.
    """
    text = row["frame"]
    if not (text.isascii() and text.isdigit()):
        raise DataError(f"{row.where}: frame must be a whole number from 0 on, got {text!r}")
    return int(text)


def as_boxes(row: Row) -> tuple[Box, ...]:
    """Give the box of a row; none where all four sides are left empty: the frame holds no object.

    Raises:
        DataError: a side is not a number, or the box is empty.
    """
    sides = [row[side] for side in ("x0", "y0", "x1", "y1")]
    if not any(sides):
        return ()
    try:
        return (Box(*map(float, sides)),)
    except ValueError as error:
        raise DataError(f"{row.where}: expected a box with x0 < x1 and y0 < y1 ({error})") from error
