"""Read tables as people write them, as text, keeping file and line for messages.

Commas, semicolons, tabs or pipes; UTF-8, UTF-16 or Windows-1252; headers in any case, by any of their usual names.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unicodedata import normalize

from tcam.errors import DataError
from tcam.types import SPLITS, Split

Columns = Mapping[str, tuple[str, ...]]
"""Names of columns, each with the other headers accepted for it, preferred ones first."""

CLIP_COLUMNS: Final[Columns] = {
    "video": (
        *("path", "filename", "file", "clip", "video_path", "file_path", "video_file", "video_name", "clip_name"),
        *("video_id", "clip_id", "name", "id"),
    ),
    "class": ("class_name", "tag", "label_name", "label", "category_name", "category"),
    "split": ("set", "subset", "partition", "phase", "data_split"),
}
"""Columns of a table of videos. Headers of class names come before those that may hold class numbers."""

SPLIT_WORDS: Final[dict[str, Split]] = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Accepted words for splits, in lower case."""
_DELIMITERS: Final = "\x1f,;\t|"
"""The first occurs in no file; it stands for a table of one column, which has no delimiter."""
_HEAD: Final = 1 << 16
"""Number of bytes that hold the header of any table."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: ``row["column"]`` is its text, stripped; ``where`` names file and line."""

    where: str
    values: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values.get(column, "")


@dataclass(frozen=True, slots=True)
class Table:
    """A table as text: ``columns`` maps each column found to its header as written, ``unused`` are the other headers.

    The values of ``rows`` are stripped, in Unicode NFC, by column name.
    """

    path: Path
    columns: Mapping[str, str]
    unused: tuple[str, ...]
    rows: tuple[Row, ...]
    delimiter: str


def read_table(path: Path, columns: Columns, *, required: Sequence[str]) -> Table:
    """Read the rows of a table, except empty ones and those that start with ``#``.

    Args:
        path: of the file.
        columns: the columns to read; all others are listed as unused.
        required: those that must be present.

    Raises:
        DataError: the file cannot be read or is no table with the required columns, a column occurs twice, or a row
            has more cells than the header, an open quote or no video.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror})") from error
    try:
        lines, delimiters = _split_lines(_decode(data))
    except UnicodeError as error:
        raise DataError(f"{path} is not a table of text: save it as CSV in UTF-8") from error
    delimiter = _find_delimiter(lines, delimiters, columns, required)
    rows = _split_rows(path, lines, delimiter)
    where, header = next(rows, (f"{path}", []))
    found = _match(header, columns)
    if any(name not in found for name in required):
        raise DataError(_describe_missing(path, columns, required, header))
    for name, place in found.items():
        if [_as_key(cell) for cell in header].count(_as_key(header[place])) > 1:
            raise DataError(f"{where}: expected one column {name}, found {header[place]!r} twice")
    return Table(
        path,
        {name: header[place] for name, place in found.items()},
        tuple(cell for place, cell in enumerate(header) if cell and place not in found.values()),
        tuple(_as_row(where, cells, header, found) for where, cells in rows),
        delimiter,
    )


def find_columns(path: Path, columns: Columns) -> Mapping[str, str]:
    """Return the header as written of each column found, reading only the head of the file; empty if it is no table."""
    try:
        with path.open("rb") as file:
            lines, delimiters = _split_lines(_decode(file.read(_HEAD), whole=False))
    except (OSError, UnicodeError):
        return {}
    header = _split_header(lines, _find_delimiter(lines, delimiters, columns, ()))
    return {name: header[place] for name, place in _match(header, columns).items()}


def as_split(row: Row, column: str = "split") -> Split | None:
    """Return the split that a row names in any of the usual words; None if it is empty.

    Raises:
        DataError: it is another word.
    """
    text = row[column]
    split = SPLIT_WORDS.get(text.casefold())
    if text and split is None:
        raise DataError(f"{row.where}: split must be one of {', '.join(SPLITS)}, got {text!r}")
    return split


def as_frame(row: Row) -> int:
    """Return the ``frame`` of a row, counted from 0.

    Raises:
        DataError: it is not a whole number from 0 on.
    """
    whole = re.fullmatch(r"(\d{1,18})(\.0*|,0)?", row["frame"], re.ASCII)  # "12.0" is how pandas writes a 12
    if whole is None:
        raise DataError(f"{row.where}: frame must be a whole number from 0 on, got {row['frame']!r}")
    return int(whole[1])


def _decode(data: bytes, *, whole: bool = True) -> str:
    """Decode the bytes of a file, or its first ones; raise UnicodeError if they are not text."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    elif b"\0" in data[:2]:  # one of the two bytes of the first letter
        encodings = ["utf-16-be" if data.startswith(b"\0") else "utf-16-le"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(data, final=whole)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise UnicodeError("no text in any of the usual encodings")


def _split_lines(text: str) -> tuple[list[str], str]:
    """Return the lines of a table with comments blanked, and the delimiters it may have."""
    lines = ["\n" if line.startswith("#") else line for line in io.StringIO(text, newline="")]
    # Excel's own first line, such as sep=;
    named = re.fullmatch(r'"?sep=([,;\t|:])"?\s*', lines[0], re.IGNORECASE) if lines else None
    return (["\n", *lines[1:]], named[1]) if named else (lines, _DELIMITERS)


def _split_header(lines: Sequence[str], delimiter: str) -> list[str]:
    """Return the cells of the first row that holds text, even if quotes are not closed."""
    rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        return next((cells for row in rows if any(cells := [cell.strip() for cell in row])), [])
    except csv.Error:
        return []


def _find_delimiter(lines: Sequence[str], delimiters: str, columns: Columns, required: Sequence[str]) -> str:
    """Return the delimiter that finds the most required columns, then the most other columns."""

    def count(delimiter: str) -> tuple[int, int, int]:
        header = _split_header(lines, delimiter)
        found = _match(header, columns)
        return sum(name in found for name in required), len(found), len(header)

    return max(delimiters, key=count)


def _split_rows(path: Path, lines: Sequence[str], delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield file and line, and the stripped cells, of each row that holds text; the header comes first."""
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    row: list[str] | None = []
    while row is not None:
        where = f"{path}, line {reader.line_num + 1}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{where}: expected cells with closed quotes ({error})") from error
        if any(cells := [normalize("NFC", cell.strip()) for cell in row or ()]):
            yield where, cells


def _as_row(where: str, cells: Sequence[str], header: Sequence[str], found: Mapping[str, int]) -> Row:
    """Return the values of a row by column; cells missing at its end are empty."""
    if any(cells[len(header) :]):
        raise DataError(
            f"{where}: expected {len(header)} cells as in the header, found {len(cells)}; "
            "a cell that holds a delimiter needs quotes around it"
        )
    row = Row(where, {name: cells[place] if place < len(cells) else "" for name, place in found.items()})
    if "video" in found and not row["video"]:
        raise DataError(f"{where}: expected the name of a video, found an empty cell")
    return row


def _as_key(header: str) -> str:
    """Return the same key for headers that mean the same: ``Video Name``, ``videoName`` and "video-name"."""
    return re.sub(r"[\s._-]+", "", header).strip("\"'`\ufeff").lower()


def _match(header: Sequence[str], columns: Columns) -> dict[str, int]:
    """Return the position of each column in the header, by the most preferred of its names."""
    keys = [_as_key(cell) for cell in header]
    named = {
        column: [key for key in map(_as_key, (column, *others)) if key in keys] for column, others in columns.items()
    }
    return {column: keys.index(names[0]) for column, names in named.items() if names}


def _describe_missing(path: Path, columns: Columns, required: Sequence[str], header: Sequence[str]) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in ", ".join(header))[:120] or "nothing"
    missing = [name for name in required if name not in _match(header, columns) and columns[name]]
    others = "; ".join(f"{name} may be called {', '.join(columns[name][:4])}" for name in missing)
    return f"{path}: expected the columns {', '.join(required)}, found {shown}" + (f" ({others})" if others else "")
