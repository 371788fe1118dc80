"""The box table: a row per frame (``rows.py``) in a format of ``SINKS``, written in chunks, complete or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

import pandas as pd

from pipelines.inference.rows import COLUMN_TYPES, COLUMNS, Row, printable, row_of
from pipelines.inference.sinks import SINKS, JsonLinesWriter, RowWriter
from pipelines.run.files import write_json
from tcam.errors import ConfigError, DataError, one_line
from tcam.files import cannot_write, replacing
from tcam.types import FrameBox, Size

CHUNK: Final = 4096
"""Rows held in memory before they are written."""


class BoxSink:
    """An open box table; use it in a ``with`` block. The file appears when the block ends without an error."""

    def __init__(self, path: Path | None, *, metadata: Mapping[str, object]) -> None:
        self._path = path
        self._part = None if path is None else path.with_name(f".{path.name}.{os.getpid()}.part")
        self._metadata = dict(metadata)
        self._rows: list[Row] = []
        self._sizes: dict[str, Size] = {}
        self._frames: Counter[str] = Counter()
        self._last: tuple[str, int] | None = None
        self._count = 0
        self._writer: RowWriter | None = None

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

    def write(self, found: FrameBox, *, size: Size, threshold: float) -> None:
        """Add one frame, or a further tag of the frame before.

        Args:
            found: the frame and its box.
            size: (height, width) of the original frame.
            threshold: of the map.

        Raises:
            DataError: the disk is full or the target cannot be written.
            ValueError: the table is not open.
        """
        if self._writer is None:
            raise ValueError("a box table must be written inside its 'with' block")
        self._rows.append(row_of(found, size=size, threshold=threshold))
        video = printable(found.video_id)
        self._frames[video] += (video, found.frame_index) != self._last
        self._last, self._count = (video, found.frame_index), self._count + 1
        self._sizes[video] = size
        if len(self._rows) >= CHUNK or self._path is None:  # the reader of a pipe waits for every line
            with self._naming_the_target():
                self._flush(self._writer)

    def _open(self) -> RowWriter:
        if self._path is None or self._part is None:
            return JsonLinesWriter(sys.stdout)
        self._part.parent.mkdir(parents=True, exist_ok=True)
        return SINKS[self._path.suffix.lower()].open(self._part)

    def _flush(self, writer: RowWriter) -> None:
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
        about = {"columns": list(COLUMNS), "rows": self._count, "videos": videos}
        write_json(sidecar(self._path), {**self._metadata, **about})

    def _abandon(self) -> None:
        """Close the writer and remove the unfinished file; does nothing after a clean end."""
        # An error during the clean-up would hide the original error.
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
            raise  # the reader of the pipe is gone: not a disk error
        except OSError as error:
            raise cannot_write(self._path or Path("standard output"), error) from None


def sidecar(path: Path) -> Path:
    """Return the path of a box table's metadata: ``boxes.csv.meta.json`` for ``boxes.csv``."""
    return path.with_name(f"{path.name}.meta.json")


def open_box_sink(target: str, *, metadata: Mapping[str, object]) -> BoxSink:
    """Open a box table for writing.

    Args:
        target: a file name with an ending of ``SINKS``, or ``-`` for JSON Lines on standard output.
        metadata: written to the sidecar ``<target>.meta.json`` with rows and videos; standard output has no sidecar.

    Raises:
        ConfigError: the name has another ending.
    """
    if target == "-":
        return BoxSink(None, metadata=metadata)
    path = Path(target)
    if path.suffix.lower() not in SINKS:
        found = f"'{path.suffix}'" if path.suffix else "no ending"
        raise ConfigError(
            f"box table {target}: expected a name that ends in {', '.join(SINKS)} (or - for JSON Lines on standard "
            f"output), found {found}"
        )
    return BoxSink(path, metadata=metadata)


def read_boxes(path: Path) -> pd.DataFrame:
    """Read a box table; all formats give the same table.

    Returns:
        The columns of ``rows.py``; class names stay strings (``on``, ``007``), missing numbers are NaN, ``track_id``
        is a nullable integer.

    Raises:
        ConfigError: the name has an ending that is not in ``SINKS``.
        DataError: the file is missing, damaged or lacks columns.
    """
    if path.suffix.lower() not in SINKS:
        raise ConfigError(f"box table {path}: expected a name that ends in {', '.join(SINKS)}")
    try:
        table = SINKS[path.suffix.lower()].read(path)
        missing = [name for name in COLUMNS if name not in table.columns]
        if missing:
            raise DataError(f"{path}: expected the columns of a box table, found none called {', '.join(missing)}")
        names = {str: "str", int: "int64", float: "float64"}
        return table[list(COLUMNS)].astype({c: names[t] for c, t in COLUMN_TYPES.items()} | {"track_id": "Int64"})
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"cannot read the box table {path}: {one_line(error)}") from None
