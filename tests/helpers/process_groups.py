"""Trainings by two processes that speak over gloo, started by hand; helpers of these tests."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from pipelines.data.negatives import find_negatives
from pipelines.data.prepare import Prepared
from pipelines.models.localizer import build_network
from pipelines.parallel.processes import fresh_start
from pipelines.run.log import RunLog
from pipelines.training import loop as trainer
from pipelines.training.cam_cache import CamCache
from pipelines.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from pipelines.training.loop import TrainingContext
from pipelines.training.stages import train_classifier, train_localizer
from pipelines.training.validation import Validator
from tcam.types import FrameTruth
from tests.helpers.tiny import CPU, SIDE, tiny_config


@dataclass(frozen=True)
class Case:
    """One training: its name, its stage and its settings."""

    name: str
    stage: str
    overrides: tuple[str, ...]


def train_case(case: Case, data: Prepared, cams: Path, folder: Path, group: ProcessGroup = SINGLE_PROCESS) -> None:
    """Train in float64; the leader also leaves the sums of the losses after every step in steps.json.

    In float32 a value near a kink of the network falls on either side by rounding, which moves a gradient by up to 1 %.
    """
    config = tiny_config(*case.overrides, "save_every_s=0")
    folder.mkdir(parents=True, exist_ok=True)
    network = build_network(config.model, 2, decoder=case.stage == "localizer", seed=config.seed).double()
    validator = Validator(data.index, data.truth, settings=config.evaluation, size=(SIDE, SIDE))
    steps: list[dict[str, float]] = []
    real = trainer.save_state

    def save_and_note(path: Path, state: dict) -> None:
        steps.append(dict(state["position"]["sums"]))
        real(path, state)

    trainer.save_state = save_and_note
    try:
        with RunLog(folder) as log:
            empty = tuple(FrameTruth(item.video_id, 0, item.label, ()) for item in data.index.of_split("train"))
            negatives = find_negatives(config, data.index, empty, ())
            context = TrainingContext(config, data.index, validator, log, CPU, folder, "f", group, negatives)
            if case.stage == "classifier":
                train_classifier(network, context)
            else:
                train_localizer(network, CamCache.open(cams, data.index, config.localizer.temporal), context)
    finally:
        trainer.save_state = real
    if group.is_main:
        (folder / "steps.json").write_text(json.dumps(steps))


def in_process_group(size: int, folder: Path, work: Callable[..., None], arguments: Sequence[object]) -> None:
    """Call ``work(*arguments, group)`` in ``size`` processes at once; raises what one of them could not do."""
    folder.mkdir(parents=True, exist_ok=True)
    context = fresh_start()
    processes = [
        context.Process(target=_member, args=(rank, size, folder, work, tuple(arguments))) for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        process.kill()
    said = "\n".join(path.read_text() for path in folder.glob("failed-*.txt"))
    assert [process.exitcode for process in processes] == [0] * size, said


def _member(rank: int, size: int, folder: Path, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=size)
    try:
        work(*arguments, ProcessGroup(rank, size))
    except BaseException:
        (folder / f"failed-{rank}.txt").write_text(traceback.format_exc())
        raise
    dist.destroy_process_group()
