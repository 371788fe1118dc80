"""The run folder: its name, its log (metrics.jsonl and TensorBoard), its finished stages, and bars on stderr."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipelines.files import copy_folder, write_json, write_text
from pipelines.parallel import Progress as WorkProgress
from tcam.errors import ConfigError, DataError
from tcam.files import cannot_write, temporary_name

if TYPE_CHECKING:
    from tensorboard.summary.writer.record_writer import RecordWriter

console = Console(stderr=True, highlight=False, markup=False, emoji=False, width=None if sys.stderr.isatty() else 160)
"""Everything a person reads goes to stderr; stdout is for data. No markup: names of files may look like it."""


def check_run_name(name: str) -> str:
    """Give the name back if it can be part of a folder name.

    Raises:
        ConfigError: it holds other characters.
    """
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ConfigError(f"--name wants letters, digits, '.', '_', '+' or '-', got '{name}'")
    return name


def create_run(root: Path, name: str) -> Path:
    """Make ``root/<name>-NNN`` with the next free number; runs are never overwritten.

    Raises:
        ConfigError: the name holds characters that do not belong in a folder name.
        DataError: the folder cannot be made.
    """
    check_run_name(name)
    try:
        root.mkdir(parents=True, exist_ok=True)
        taken = [
            int(match[1])
            for path in root.iterdir()
            if (match := re.fullmatch(re.escape(name) + r"-(\d{3,})", path.name))
        ]
        for number in range(max(taken, default=0) + 1, max(taken, default=0) + 1000):
            folder = root / f"{name}-{number:03d}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue  # another process took the number just now
            return folder
    except OSError as error:
        raise DataError(f"cannot make a run folder in {root}: {error.strerror}") from None
    raise DataError(f"no free run number for '{name}' in {root}")


def open_run(folder: Path) -> Path:
    """Check that a folder is a run.

    Raises:
        DataError: it is not there, or holds no config.yaml.
    """
    if (folder / "config.yaml").is_file():
        return folder
    found = "found no such folder" if not folder.is_dir() else "found a folder without config.yaml"
    near = sorted(path.parent.name for path in folder.parent.glob("*/config.yaml")) if folder.parent.is_dir() else []
    hint = f"; runs there: {', '.join(near[:8])}" if near else "; make one with 'tcam train'"
    raise DataError(f"expected a run folder at {folder}, {found}{hint}")


def package_versions() -> dict[str, str]:
    """Give the versions of the packages that a result depends on."""
    versions = {}
    for package in ("tcam", "torch", "torchvision", "timm", "numpy", "av", "decord", "onnxruntime", "openvino"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def describe_environment() -> dict[str, object]:
    """Say what a run ran on: versions, machine, threads."""
    import torch

    from pipelines.device import processor_name

    return {
        "versions": package_versions(),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": sys.argv,
    }


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
        """Give what was logged of a stage, by whichever process."""
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


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a run: its folder and the hash of all it depends on."""

    folder: Path
    fingerprint: str

    @property
    def done(self) -> bool:
        """Whether the folder holds the finished result of just these inputs."""
        try:
            mark = json.loads((self.folder / "stage.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(mark, dict) and mark.get("fingerprint") == self.fingerprint

    def finish(self) -> None:
        """Mark the stage as finished; nothing is written into its folder afterwards."""
        write_json(self.folder / "stage.json", {"fingerprint": self.fingerprint})


def run_stage(stage: Stage, work: Callable[[], None]) -> None:
    """Do a stage unless it is done here, or was done with the same inputs in a neighbouring run: then it is copied."""
    name, run = stage.folder.name, stage.folder.parent
    if stage.done:
        console.print(f"{name}: unchanged, kept", style="dim")
        return
    for other in sorted(run.parent.glob(f"*/{name}/stage.json")):
        if other.parent != stage.folder and Stage(other.parent, stage.fingerprint).done:
            _take_over(other.parent, stage.folder)
            console.print(f"{name}: unchanged, taken from {other.parent.parent.name}", style="dim")
            return
    started = stage.folder / "started.json"
    if stage.folder.exists() and not (
        started.is_file() and json.loads(started.read_text())["fingerprint"] == stage.fingerprint
    ):
        shutil.rmtree(stage.folder)  # left by other inputs: nothing of it may be mixed in
    write_json(started, {"fingerprint": stage.fingerprint})
    work()
    stage.finish()


def _take_over(source: Path, target: Path) -> None:
    """Copy a finished stage whole or not at all; nothing that was there before stays.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    partial = temporary_name(target)
    try:
        copy_folder(source, partial)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    except OSError as error:
        raise DataError(f"cannot copy {source} to {target}: {error.strerror or error}; free space") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def print_text_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Show a table of text on stderr."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def progress_bar(*columns: str) -> Progress:
    """A bar on stderr, where that is a terminal; ``columns`` name fields that stand behind it."""
    fields = [TextColumn(f"{{task.fields[{column}]}}") for column in columns]
    return Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        *fields,
        console=console,
        disable=console.quiet or not console.is_terminal,  # a log file gets the line of each epoch instead
    )


@contextmanager
def item_bar(description: str) -> Iterator[Callable[[WorkProgress], None]]:
    """A bar for work over items: failed, rate, time left and the slowest item stand behind it.

    Gives what to call after every item.
    """
    with progress_bar("note") as bar:
        task = bar.add_task(description, total=None, note="")
        yield lambda state: bar.update(task, completed=state.done, total=state.total, note=str(state))
