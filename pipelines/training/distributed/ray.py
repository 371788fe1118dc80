"""Training on workers of Ray Train; the only user of Ray Train, imported when more than one worker is asked for.

This process keeps the run: its lock, its other stages, its output. The workers train one stage as a group, and its main
process writes the stage's folder, which all of them must be able to read.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch

from pipelines.config.schema import RunConfig
from pipelines.models.device import choose_compute
from pipelines.models.run import Run
from pipelines.parallel.cluster import ClusterError, kill_workers, leave_ray, set_ray_up
from pipelines.run.console import console
from pipelines.run.log import RunLog
from pipelines.run.signals import Interrupted, end_hard, wish_to_end
from pipelines.training.distributed.process_group import (
    PATIENCE,
    ProcessGroupError,
    backend_of,
    check_gpus,
    current_process_group,
)
from pipelines.training.run_stage import train_beside
from pipelines.training.validation import Validator
from tcam.errors import ConfigError, MissingPartError, TcamError, TrainingError, one_line

_WISH: Final = ".interrupted"
_LOOK_EVERY_S: Final = 0.2
_SAVING_S: Final = 5.0
"""Seconds for the workers to finish and save a step; the rest of the ten seconds until the end is left to Ray."""

_OBJECT_STORE_BYTES: Final = 100_000_000
"""Object store of Ray: only settings pass through it."""


class RayTraining:
    """Trains a stage on ``num_workers`` workers, each with its own GPU if the run's device is CUDA.

    They are processes on this machine, or on the cluster that ``RAY_ADDRESS`` names.

    Raises:
        MissingPartError: Ray Train is not installed.
        ConfigError: a device number, or fewer GPUs than workers.
    """

    def __init__(self, config: RunConfig, num_workers: int) -> None:
        set_ray_up()
        os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
        try:
            import ray.train.torch
        except ImportError as error:
            raise MissingPartError(
                f"--num-workers {num_workers} needs Ray Train ({error}): pip install 'tcam[ray]', or start "
                f"'torchrun --nproc-per-node {num_workers} --no-python tcam train ...' without --num-workers"
            ) from None
        self._ray: Any = ray
        self._num_workers = num_workers
        self._epochs = {"classifier": config.classifier.epochs, "localizer": config.localizer.epochs}
        self._on_cluster = "RAY_ADDRESS" in os.environ
        self._gpus = choose_compute(config.device, config.precision).device.type == "cuda"
        if self._gpus and not self._on_cluster:
            check_gpus(num_workers, torch.cuda.device_count())

    def __call__(self, run: Run, name: str, _: Validator, log: RunLog) -> None:
        """Train a stage; this process waits and prints what the workers log.

        Raises:
            TcamError: a worker failed or ended.
            Interrupted: by a signal; the workers have saved their state.
        """
        stage = (run.folder / name).resolve()
        (stage / _WISH).unlink(missing_ok=True)
        failures: list[Exception] = []
        done, left = threading.Event(), threading.Event()
        # Ray takes SIGINT and SIGTERM for itself where it runs in the main thread.
        fit = threading.Thread(target=self._fit, args=(stage, failures, done, left), daemon=True)
        shown = len(log.rows(name))
        fit.start()
        try:
            while not done.wait(_LOOK_EVERY_S):
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.getsignal(number))  # Ray's core puts its own below Python's
                shown = self._show(log, name, shown)
            self._show(log, name, shown)
        except Interrupted as interrupt:
            (stage / _WISH).write_text(str(interrupt.exit_code - 128))
            done.wait(_SAVING_S)  # the leader takes the wish away when it has saved, and its training returns
            raise
        finally:
            address = os.environ.get("RAY_ADDRESS")
            if done.is_set():
                leave_ray(address)
            left.set()
            (stage / _WISH).unlink(missing_ok=True)
            shutil.rmtree(stage / "ray", ignore_errors=True)
            fit.join(_LOOK_EVERY_S)
            if fit.is_alive():  # Ray, left while a thread is inside it, would end this process with a code of its own
                kill_workers(address)
                end_hard()
        for failure in failures:
            raise _explain(failure, name)

    def _fit(self, stage: Path, failures: list[Exception], done: threading.Event, left: threading.Event) -> None:
        """Train, then wait until Ray was left: Linux kills the processes of Ray with the thread that started them.

        Killed, they could not end their own children, which would stay for a minute.
        """
        try:
            self._start()
            from ray.train import RunConfig as RayRunConfig
            from ray.train import ScalingConfig
            from ray.train.torch import TorchConfig, TorchTrainer

            TorchTrainer(
                train_as_worker,
                train_loop_config={"run": str(stage.parent), "stage": stage.name},
                torch_config=TorchConfig(backend=backend_of(self._gpus), timeout_s=int(PATIENCE.total_seconds())),
                scaling_config=ScalingConfig(num_workers=self._num_workers, use_gpu=self._gpus),
                run_config=RayRunConfig(name=stage.name, storage_path=str(stage / "ray")),
            ).fit()
        except Exception as error:  # noqa: BLE001, RUF100  # raised again in the main thread
            failures.append(error)
        done.set()
        left.wait()

    def _start(self) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if not self._on_cluster:
            cores = max(os.cpu_count() or 1, self._num_workers)  # more workers than cores are slow, not wrong
            options |= {"address": "local", "num_cpus": cores, "object_store_memory": _OBJECT_STORE_BYTES}
            options["include_dashboard"] = False
        try:
            self._ray.init(**options)
        except Exception as error:  # ConnectionError, RuntimeError, Ray's own
            where = f"at RAY_ADDRESS={os.environ['RAY_ADDRESS']}" if self._on_cluster else "on this machine"
            raise ClusterError(
                f"Ray does not start or answer {where}: {one_line(error)}; resume the run later"
            ) from None
        if not self._on_cluster:
            return
        kind = "GPU" if self._gpus else "CPU"
        found = int(self._ray.cluster_resources().get(kind, 0))
        if found < self._num_workers:
            raise ConfigError(f"every worker needs a {kind}: the cluster has {found}, got {self._num_workers} workers")

    def _show(self, log: RunLog, name: str, shown: int) -> int:
        for row in log.rows(name)[shown:]:
            values = "  ".join(f"{key} {value:.4g}" for key, value in row.items() if key not in ("stage", "epoch"))
            console.print(f"{name} {row['epoch']}/{self._epochs[name.partition('-')[0]]}  {values}")
            shown += 1
        return shown


def train_as_worker(order: dict[str, str]) -> None:
    """Train a stage as one of the workers that Ray Train has made a process group of."""
    group, folder = current_process_group(), Path(order["run"])
    console.quiet = True
    if group.is_main:
        threading.Thread(target=_watch, args=(folder / order["stage"] / _WISH,), daemon=True).start()
    with suppress(Interrupted):  # the state is saved, and whoever asked for it knows
        train_beside(folder, order["stage"], group)
    if group.is_main:
        (folder / order["stage"] / _WISH).unlink(missing_ok=True)


def _watch(wish: Path) -> None:
    while not wish.exists():
        time.sleep(_LOOK_EVERY_S)
    time.sleep(_LOOK_EVERY_S / 2)  # it may be there, but not yet written
    wish_to_end(int(wish.read_text() or "15"))


def _explain(failure: Exception, stage: str) -> TcamError:
    """Return the error of a worker from the error that Ray raises."""
    by_rank: dict[int, Exception] = getattr(failure, "worker_failures", {}) or {0: failure}
    ended = "killed, or out of memory?"
    for rank, error in sorted(by_rank.items()):
        cause = next((part for part in (error, *error.args) if isinstance(part, TcamError)), None)
        if cause is not None and not isinstance(cause, ProcessGroupError):
            return cause
        if cause is None:
            ended = f"worker {rank}: {' '.join(str(error).split())[-200:]}"
    return TrainingError(f"{stage} stopped: a worker ended ({ended}); resume the run with --resume")
