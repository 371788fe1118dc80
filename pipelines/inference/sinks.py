"""The file formats of a box table: ``SINKS`` maps the ending of a file name to its writer and reader."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.inference.rows import COLUMN_TYPES, COLUMNS, Row, as_dict


class RowWriter(Protocol):
    """An open file that takes rows."""

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows, in order."""

    def close(self) -> None:
        """Finish the file."""


def _wrote_nothing(_: Path) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """A row of ``SINKS``.

    Attributes:
        open: creates the file, not yet at its final name, and returns its writer.
        read: returns a table with the columns of ``rows.py``. Raises ``OSError`` or ``ValueError`` for a damaged file.
        wrote: whether a file without its sidecar was written by tcam, and so may be replaced.
    """

    open: Callable[[Path], RowWriter]
    read: Callable[[Path], pd.DataFrame]
    wrote: Callable[[Path], bool] = _wrote_nothing


class CsvWriter:
    """Rows as comma-separated values, in UTF-8."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._stream, lineterminator="\n")
        self._csv.writerow(COLUMNS)

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows, in order."""
        self._csv.writerows(rows)

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()


class JsonLinesWriter:
    """Rows as JSON objects, one per line, flushed after every write; a stream that was passed in stays open."""

    def __init__(self, target: Path | IO[str]) -> None:
        self._owned = isinstance(target, Path)
        self._stream = target.open("w", encoding="utf-8") if isinstance(target, Path) else target

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows, in order."""
        lines = (json.dumps(as_dict(row), allow_nan=False) for row in rows)
        self._stream.write("\n".join(lines) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Finish the file."""
        if self._owned:
            self._stream.close()


class ParquetWriter:
    """Rows as Parquet, one row group per write."""

    def __init__(self, path: Path) -> None:
        kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
        self._schema = pa.schema([(name, kinds[kind]) for name, kind in COLUMN_TYPES.items()])
        self._file = pq.ParquetWriter(path, self._schema)

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows, in order."""
        values = zip(zip(*rows, strict=True), self._schema, strict=True)
        columns = [pa.array(column, field.type) for column, field in values]
        self._file.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def _read_csv(path: Path) -> pd.DataFrame:
    kinds = {name: "str" for name, kind in COLUMN_TYPES.items() if kind is str}
    missing = {name: [""] for name in COLUMNS if name not in kinds}
    return pd.read_csv(path, dtype={**kinds, "track_id": "Int64"}, keep_default_na=False, na_values=missing)


def _read_json_lines(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream if line.strip()]
    rows = [row for row in rows if "end" not in row]  # the last line of a stream
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(COLUMNS))


def _is_csv(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        return file.readline().strip() in (",".join(COLUMNS), "video,reason")  # errors.csv has the second


def _is_json_lines(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        first = json.loads(file.readline(100_000))
    return isinstance(first, dict) and ({"frame", "class_score"} <= first.keys() or "end" in first)


def _is_parquet(path: Path) -> bool:
    return bool(pq.read_schema(path).names == list(COLUMNS))


SINKS: Final[dict[str, Sink]] = {
    ".csv": Sink(open=CsvWriter, read=_read_csv, wrote=_is_csv),
    ".jsonl": Sink(open=JsonLinesWriter, read=_read_json_lines, wrote=_is_json_lines),
    ".parquet": Sink(open=ParquetWriter, read=pd.read_parquet, wrote=_is_parquet),
}
"""Formats by file name ending, in lower case. Your own file may add a row: see docs/extending.md."""
