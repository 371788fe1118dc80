"""The run folder: its name, its log (metrics.jsonl and TensorBoard), its finished stages, and bars on stderr."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pipelines.run.files import write_text
from tcam.files import cannot_write

if TYPE_CHECKING:
    from tensorboard.summary.writer.record_writer import RecordWriter


class RunLog:
    """The rows of numbers of a run: ``metrics.jsonl``, and the same for TensorBoard; one writer per run.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / "metrics.jsonl"
        try:
            self._path.touch()
        except OSError as error:
            raise cannot_write(self._path, error) from None
        self._board: RecordWriter | None = None  # made for the first row: a run that only checks its stages has none

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            with suppress(OSError):  # a full disk has been told of when a row was written
                self._board.close()

    def write(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Log one epoch of one stage; it is on the disk afterwards.

        Raises:
            DataError: the disk is full or the folder cannot be written.
        """
        row = {"stage": stage, "epoch": epoch, **{name: float(f"{value:.6g}") for name, value in values.items()}}
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            self._show(row)
        except OSError as error:
            raise cannot_write(self._path, error) from None

    def rewind(self, stage: str, epochs: int) -> None:
        """Forget what a stage logged after an epoch, and a line that was cut off: the stage goes on from there.

        Raises:
            DataError: the disk is full or the folder cannot be written.
        """
        kept = [row for row in self._rows() if row["stage"] != stage or row["epoch"] <= epochs]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        if self._path.read_text(encoding="utf-8") != text:
            write_text(self._path, text)

    def rows(self, stage: str) -> list[dict[str, Any]]:
        """Return what was logged of a stage, by whichever process."""
        return [row for row in self._rows() if row["stage"] == stage]

    def _rows(self) -> list[dict[str, Any]]:
        lines = self._path.read_text(encoding="utf-8").splitlines()
        return [row for row in map(_row_of, lines) if row is not None]

    def _show(self, row: Mapping[str, Any]) -> None:
        """Add a row to TensorBoard's file; the first one writes that file anew, as a kill leaves doubles or gaps."""
        rows: Sequence[Mapping[str, Any]] = [row]
        if self._board is None:
            from tensorboard.summary.writer.record_writer import RecordWriter

            for old in self._folder.glob("events.out.tfevents.*"):
                old.unlink()
            target = self._folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
            self._board = RecordWriter(target.open("wb"))
            self._board.write(_tensorboard_record(None))
            rows = self._rows()
        for row in rows:
            self._board.write(_tensorboard_record(row))
        self._board.flush()


def _row_of(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"stage", "epoch"} <= row.keys() else None


def _tensorboard_record(row: Mapping[str, Any] | None) -> bytes:
    """Encode a row, or None: what such a file begins with."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    if row is None:
        event = Event(wall_time=time.time(), file_version="brain.Event:2")
    else:
        named = {f"{row['stage']}/{name}": value for name, value in row.items() if name not in ("stage", "epoch")}
        values = [Summary.Value(tag=name, simple_value=value) for name, value in named.items()]
        event = Event(wall_time=time.time(), step=row["epoch"], summary=Summary(value=values))
    record: bytes = event.SerializeToString()
    return record
