"""The run folder: its name, its log (metrics.jsonl and TensorBoard), its finished stages, and bars on stderr."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipelines.files import copy_folder, write_json
from tcam.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

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


def describe_environment() -> dict[str, object]:
    """Say what a run ran on: versions, machine, threads."""
    packages = ("tcam", "torch", "torchvision", "timm", "numpy", "av", "decord")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": sys.argv,
    }


class RunLog:
    """Appends rows of numbers to ``metrics.jsonl`` and TensorBoard; one writer per run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stream = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._board: SummaryWriter | None = None  # made for the first row: a run that only checks its stages has none

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if self._board is not None:
            self._board.close()

    def write(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Log one epoch of one stage."""
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        self._stream.write(json.dumps({"stage": stage, "epoch": epoch, **rounded}) + "\n")
        self._stream.flush()
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self._folder))
        for name, value in values.items():
            self._board.add_scalar(f"{stage}/{name}", value, epoch)


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
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
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
