"""Choose who trains the stages of a run: this process, the processes of torchrun, or workers of Ray Train."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from pipelines.config.schema import RunConfig
from pipelines.models.run import Run
from pipelines.run.console import console
from pipelines.run.log import RunLog
from pipelines.training.distributed.process_group import ProcessGroup, check_group_size
from pipelines.training.run_stage import TrainStage, train_beside, train_here
from pipelines.training.validation import Validator
from tcam.errors import ConfigError, TrainingError


def choose_training(config: RunConfig, num_workers: int, group: ProcessGroup) -> TrainStage:
    """Choose how the stages are trained, before anything is written.

    Args:
        config: settings of the run.
        num_workers: ``--num-workers``.
        group: the processes that torchrun started; this is the main one.

    Raises:
        ConfigError: the number of workers does not fit the batch, the GPUs or torchrun.
        MissingPartError: more than one worker, and Ray Train is not installed.
    """
    if group.size > 1 and num_workers not in (1, group.size):
        raise ConfigError(f"torchrun started {group.size} processes: leave out --num-workers, got {num_workers}")
    check_group_size(config, num_workers if group.size == 1 else group.size)
    if group.size > 1:
        return partial(_train_with_others, group)
    if num_workers > 1:
        from pipelines.training.distributed.ray import RayTraining

        return RayTraining(config, num_workers)
    return train_here


def _train_with_others(group: ProcessGroup, run: Run, name: str, validator: Validator, log: RunLog) -> None:
    group.broadcast(json.dumps({"run": str(run.folder.resolve()), "stage": name}))
    train_here(run, name, validator, log, group)


def release_others(group: ProcessGroup, run: Path) -> None:
    """Broadcast to the other processes that the run is finished."""
    if group.size > 1:
        group.broadcast(json.dumps({"run": str(run.resolve()), "stage": None}))


def train_with_main(group: ProcessGroup) -> Path:
    """Train the stages that the main process announces until it has finished; return the run folder.

    Raises:
        SystemExit: training cannot continue, or the main process has ended; it says why.
    """
    console.quiet = True
    while True:
        try:
            wanted = json.loads(group.receive())
            if wanted["stage"] is None:
                return Path(wanted["run"])
            train_beside(Path(wanted["run"]), wanted["stage"], group)
        except TrainingError:
            raise SystemExit(TrainingError.exit_code) from None
