"""The stages of a run: each runs once, and is kept or copied from another run if its inputs are the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipelines.run.console import console, time_left
from pipelines.run.files import copy_folder, write_json
from pipelines.run.plan import RunPlan, current_plan
from tcam.errors import DataError
from tcam.files import temporary_name

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a run: its folder and the hash of everything it depends on."""

    folder: Path
    fingerprint: str

    @property
    def done(self) -> bool:
        """Whether the folder holds the finished result for exactly these inputs."""
        try:
            mark = json.loads((self.folder / "stage.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(mark, dict) and mark.get("fingerprint") == self.fingerprint

    def finish(self) -> None:
        """Mark the stage as finished; nothing is written into its folder afterwards."""
        write_json(self.folder / "stage.json", {"fingerprint": self.fingerprint})


def run_stage(stage: Stage, work: Callable[[], None]) -> None:
    """Run a stage, unless it is finished here, or in a neighbouring run with the same inputs: then it is copied."""
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
    run_step(name, work)
    stage.finish()


def run_step(name: str, work: Callable[[], Result]) -> Result:
    """Do a step of the run's plan, after a line that says which one it is and about how long the run still takes."""
    plan = current_plan()
    return work() if plan is None else plan.run(name, lambda: _announced(plan, name, work))


def _announced(plan: RunPlan, name: str, work: Callable[[], Result]) -> Result:
    left = plan.seconds_left
    console.print(f"{plan.place}: {name}" + ("" if left is None else f", about {time_left(left)} left"), style="dim")
    return work()


def _take_over(source: Path, target: Path) -> None:
    """Copy a finished stage whole or not at all; it replaces what was there.

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
