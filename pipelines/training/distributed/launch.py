"""Who trains the stages of a run: this process alone, those that torchrun started, or workers of Ray Train."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from pipelines.config.schema import RunConfig
from pipelines.models.run import Run
from pipelines.run.console import console
from pipelines.run.log import RunLog
from pipelines.training.distributed.process_group import Team, check_team
from pipelines.training.run_stage import TrainStage, train_beside, train_here
from pipelines.training.validation import Validator
from tcam.errors import ConfigError, TrainingError


def choose_training(config: RunConfig, num_workers: int, team: Team) -> TrainStage:
    """Find out before anything is written how the stages are to be trained.

    Args:
        config: of the run.
        num_workers: ``--num-workers``.
        team: the processes that torchrun started; this one leads them.

    Raises:
        ConfigError: a number that does not fit the batch, the GPUs or torchrun.
        MissingPartError: more than one worker, and Ray Train is not installed.
    """
    if team.size > 1 and num_workers not in (1, team.size):
        raise ConfigError(f"torchrun started {team.size} processes: leave out --num-workers, got {num_workers}")
    check_team(config, num_workers if team.size == 1 else team.size)
    if team.size > 1:
        return partial(_train_with_others, team)
    if num_workers > 1:
        from pipelines.training.distributed.ray import RayTraining

        return RayTraining(config, num_workers)
    return train_here


def _train_with_others(team: Team, run: Run, name: str, validator: Validator, log: RunLog) -> None:
    team.tell(json.dumps({"run": str(run.folder.resolve()), "stage": name}))
    train_here(run, name, validator, log, team)


def release_others(team: Team) -> None:
    """Tell the other processes that all is done."""
    if team.size > 1:
        team.tell(json.dumps(None))


def help_leader(team: Team) -> None:
    """Train whatever stage the leader is at, until it has no more.

    Raises:
        SystemExit: training cannot go on, or the leader has ended; it says why.
    """
    console.quiet = True
    while True:
        try:
            wanted = json.loads(team.hear())
            if wanted is None:
                return
            train_beside(Path(wanted["run"]), wanted["stage"], team)
        except TrainingError:
            raise SystemExit(TrainingError.exit_code) from None
