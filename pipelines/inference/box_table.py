"""The box table: one row per frame, as CSV, JSON Lines or Parquet, written in chunks and whole or not at all.

Columns: ``video, frame, time_s, width, height, class, class_score, x0, y0, x1, y1, score, threshold, track_id,
status``. Frames count from 0; boxes are half-open, in pixels of the original frame in display orientation, kept to
1/100 pixel. ``status`` is ``ok``, ``none`` (nothing found: no coordinates), ``interpolated`` or ``decode_error``.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Literal, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.run.files import write_json
from tcam.errors import ConfigError, DataError
from tcam.files import cannot_write, replacing
from tcam.types import FrameBox, Size

Status = Literal["ok", "none", "interpolated", "decode_error"]
Cell = str | int | float | None
Row = tuple[Cell, ...]

_TYPES: Final[Mapping[str, type]] = {
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
COLUMNS: Final = tuple(_TYPES)
CHUNK: Final = 4096
"""Rows held in memory before they are written."""
FORMATS: Final = (".csv", ".jsonl", ".parquet")


class _Writer(Protocol):
    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None: ...


class BoxSink:
    """An open box table; use it in a ``with`` block. The file appears when the block ends without an error."""

    def __init__(self, path: Path | None, *, metadata: Mapping[str, object]) -> None:
        self._path = path
        self._part = None if path is None else path.with_name(f".{path.name}.{os.getpid()}.part")
        self._metadata = dict(metadata)
        self._rows: list[Row] = []
        self._sizes: dict[str, Size] = {}
        self._frames: Counter[str] = Counter()
        self._writer: _Writer | None = None

    def __enter__(self) -> BoxSink:
        with self._naming_the_target():
            self._writer = self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with self._naming_the_target():
                    self._publish()
        finally:
            self._abandon()

    def write(
        self,
        found: FrameBox,
        *,
        size: Size,
        threshold: float,
        status: Status | None = None,
    ) -> None:
        """Add one frame.

        Args:
            found: the frame and its box.
            size: (height, width) of the original frame.
            threshold: of the map.
            status: None says ``ok`` or ``none`` by whether there is a box.

        Raises:
            DataError: the disk is full or the target cannot be written.
            ValueError: the table is not open.
        """
        if self._writer is None:
            raise ValueError("a box table must be written inside its 'with' block")
        box: Sequence[float | None] = (None,) * 4 if found.box is None else [round(v, 2) for v in found.box]
        video, height, width = _printable(found.video_id), *size
        about = (video, found.frame_index, round(found.time_s, 6), width, height, _printable(found.class_name))
        scores = (round(found.score, 6), round(threshold, 6))
        status = status or ("none" if found.box is None else "ok")
        self._rows.append((*about, round(found.class_score, 6), *box, *scores, found.track_id, status))
        self._frames[video] += 1
        self._sizes[video] = size
        if len(self._rows) >= CHUNK or self._path is None:  # who reads a pipe waits for every line
            with self._naming_the_target():
                self._flush(self._writer)

    def _open(self) -> _Writer:
        if self._path is None or self._part is None:
            return _JsonLinesWriter(sys.stdout, keep_open=True)
        self._part.parent.mkdir(parents=True, exist_ok=True)
        writers: dict[str, Callable[[IO[str]], _Writer]] = {".csv": _CsvWriter, ".jsonl": _JsonLinesWriter}
        if self._path.suffix.lower() not in writers:
            return _ParquetWriter(self._part)
        return writers[self._path.suffix.lower()](self._part.open("w", encoding="utf-8", newline=""))

    def _flush(self, writer: _Writer) -> None:
        if self._rows:
            writer.write(self._rows)
            self._rows.clear()

    def _publish(self) -> None:
        if self._writer is not None:
            self._flush(self._writer)
            self._writer.close()
        if self._path is None or self._part is None:
            return
        with replacing(self._path) as temporary:
            self._part.replace(temporary)
        videos = {
            name: {"frames": self._frames[name], "height": height, "width": width}
            for name, (height, width) in self._sizes.items()
        }
        about = {"columns": list(COLUMNS), "rows": self._frames.total(), "videos": videos}
        write_json(sidecar(self._path), {**self._metadata, **about})

    def _abandon(self) -> None:
        """Leave nothing open and no unfinished file; after a clean end there is nothing left to do."""
        # An error while tidying up would only hide the error that brought us here.
        if self._writer is not None:
            with contextlib.suppress(OSError, ValueError):
                self._writer.close()
        if self._part is not None:
            with contextlib.suppress(OSError):
                self._part.unlink(missing_ok=True)
        self._writer = None

    @contextlib.contextmanager
    def _naming_the_target(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise  # whoever read the pipe has gone: no fault of the disk
        except OSError as error:
            raise cannot_write(self._path or Path("standard output"), error) from None


def sidecar(path: Path) -> Path:
    """Name the file that tells where a box table comes from: ``boxes.csv`` has ``boxes.csv.meta.json``."""
    return path.with_name(f"{path.name}.meta.json")


def open_box_sink(target: str, *, metadata: Mapping[str, object]) -> BoxSink:
    """Open a box table for writing.

    Args:
        target: a file name that ends in .csv, .jsonl or .parquet, or ``-`` for JSON Lines on standard output.
        metadata: what the sidecar ``<target>.meta.json`` says beside rows and videos; standard output has no sidecar.

    Raises:
        ConfigError: the name ends in none of these.
    """
    if target == "-":
        return BoxSink(None, metadata=metadata)
    path = Path(target)
    if path.suffix.lower() not in FORMATS:
        found = f"'{path.suffix}'" if path.suffix else "no ending"
        raise ConfigError(
            f"box table {target}: expected a name that ends in {', '.join(FORMATS)} (or - for JSON Lines on standard "
            f"output), found {found}"
        )
    return BoxSink(path, metadata=metadata)


def read_boxes(path: Path) -> pd.DataFrame:
    """Read a box table of any of the formats; all give the same table.

    Returns:
        The columns of this module; class names stay strings (``on``, ``007``), missing numbers are NaN, ``track_id`` is
        a nullable integer.

    Raises:
        ConfigError: the name ends in none of the formats.
        DataError: the file is missing, damaged or lacks columns.
    """
    readers: Mapping[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": _read_csv,
        ".jsonl": _read_json_lines,
        ".parquet": pd.read_parquet,
    }
    if path.suffix.lower() not in readers:
        raise ConfigError(f"box table {path}: expected a name that ends in {', '.join(FORMATS)}")
    try:
        table = readers[path.suffix.lower()](path)
        missing = [name for name in COLUMNS if name not in table.columns]
        if missing:
            raise DataError(f"{path}: expected the columns of a box table, found none called {', '.join(missing)}")
        names = {str: "str", int: "int64", float: "float64"}
        return table[list(COLUMNS)].astype({c: names[t] for c, t in _TYPES.items()} | {"track_id": "Int64"})
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"cannot read the box table {path}: {reason}") from None


def _read_csv(path: Path) -> pd.DataFrame:
    kinds = {name: "str" for name, kind in _TYPES.items() if kind is str}
    missing = {name: [""] for name in COLUMNS if name not in kinds}
    return pd.read_csv(path, dtype={**kinds, "track_id": "Int64"}, keep_default_na=False, na_values=missing)


def _read_json_lines(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream if line.strip()]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(COLUMNS))


class _CsvWriter:
    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._csv = csv.writer(stream, lineterminator="\n")
        self._csv.writerow(COLUMNS)

    def write(self, rows: Sequence[Row]) -> None:
        self._csv.writerows(rows)

    def close(self) -> None:
        self._stream.close()


class _JsonLinesWriter:
    def __init__(self, stream: IO[str], *, keep_open: bool = False) -> None:
        self._stream = stream
        self._keep_open = keep_open

    def write(self, rows: Sequence[Row]) -> None:
        lines = (json.dumps(dict(zip(COLUMNS, row, strict=True)), allow_nan=False) for row in rows)
        self._stream.write("\n".join(lines) + "\n")
        self._stream.flush()

    def close(self) -> None:
        if not self._keep_open:
            self._stream.close()


class _ParquetWriter:
    def __init__(self, path: Path) -> None:
        kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
        self._schema = pa.schema([(name, kinds[kind]) for name, kind in _TYPES.items()])
        self._file = pq.ParquetWriter(path, self._schema)

    def write(self, rows: Sequence[Row]) -> None:
        values = zip(zip(*rows, strict=True), self._schema, strict=True)
        columns = [pa.array(column, field.type) for column, field in values]
        self._file.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        self._file.close()


def _printable(name: str) -> str:
    """Spell out the bytes of a file name that is not UTF-8, so that every format can hold it."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
