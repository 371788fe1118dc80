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
        self._close_board()

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
            self._close_board()

    def rows(self, stage: str) -> list[dict[str, Any]]:
        """Return what was logged of a stage, by whichever process."""
        return [row for row in self._rows() if row["stage"] == stage]

    def _rows(self) -> list[dict[str, Any]]:
        lines = self._path.read_text(encoding="utf-8").splitlines()
        return [row for row in map(_row_of, lines) if row is not None]

    def _show(self, row: Mapping[str, Any]) -> None:
        """Add a row to TensorBoard's file; the first one starts a new file, with every row there is.

        Not with ``SummaryWriter``: its thread prints a traceback when the disk is full (decision 0017).
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        rows: Sequence[Mapping[str, Any]] = [row]
        events = []
        if self._board is None:
            for old in sorted(self._folder.glob("events.out.tfevents.*"))[:-1]:
                old.unlink()  # a TensorBoard that is open reads the last one, and goes on to the next from there
            target = self._folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
            self._board = RecordWriter(target.open("wb"))
            start = SessionLog(status=SessionLog.START)  # TensorBoard drops the steps it has from this one on
            rows, events = self._rows(), [Event(file_version="brain.Event:2"), Event(step=0, session_log=start)]
        for each in rows:
            named = {f"{each['stage']}/{name}": each[name] for name in each if name not in ("stage", "epoch")}
            values = [Summary.Value(tag=name, simple_value=value) for name, value in named.items()]
            events.append(Event(step=each["epoch"], summary=Summary(value=values)))
        for event in events:
            event.wall_time = time.time()
            self._board.write(event.SerializeToString())
        self._board.flush()

    def _close_board(self) -> None:
        if self._board is not None:
            with suppress(OSError):  # a full disk was reported when a row was written
                self._board.close()
            self._board = None


def _row_of(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"stage", "epoch"} <= row.keys() else None
