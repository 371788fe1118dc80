"""A Ray cluster as a crew: tasks for work without a model, actors for work with one. The only user of ray.

A Ray worker does no work itself: it minds one child process (``parallel_process.Child``), so that limits, crashes and
their wording are the same as on one machine. Jobs and results travel as pickled bytes, small ones; frames never do.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipelines.parallel import Answer, Job, one_line
from pipelines.parallel_process import Child
from pipelines.spread import Spread
from tcam.errors import MissingPartError, TcamError

if TYPE_CHECKING:
    from ray import ObjectRef

START_LIMIT_S: Final = 600.0
_WAIT_S: Final = 0.2
_LEAVE_S: Final = 1.0
_STORE: Final = 2**30
"""Object store, in bytes, of a Ray that we start, enough for a model: Ray takes a third of the memory."""
_SPARE: Final = 30 * 2**20


class ClusterError(TcamError):
    """The Ray cluster is not there, or too small."""

    exit_code = 6


class Minder:
    """Runs in a Ray worker: keeps one child that holds the function, and gives jobs to it one by one."""

    _kept: ClassVar[dict[int, Minder]] = {}

    def __init__(self, start: bytes) -> None:
        self._start = start
        self._child: Child | None = None

    def ready(self) -> bool:
        """Start the child; the actor is there once this returns.

        Raises:
            TcamError: it cannot start.
        """
        self._child = self._child if self._child is not None and not self._child.ended else Child(self._start)
        while not self._child.ready:
            self._child.pipe.poll(_WAIT_S)
            self._child.look()
        return True

    def run(self, job: Job) -> bytes:
        """Give the pickled answer of one job."""
        try:
            self.ready()
        except TcamError as error:
            return pickle.dumps(Answer(job.index, "failed", one_line(error)))
        child = self._child
        if child is None:
            raise AssertionError("a minder that is ready has a child")
        child.begin(job)
        while True:
            child.pipe.poll(_WAIT_S)
            answer = child.look()
            if answer is not None:
                return pickle.dumps(answer)

    @classmethod
    def of_process(cls, key: int, start: bytes) -> Minder:
        """Give the minder of this Ray worker, which serves many tasks of one map; that of an older map goes."""
        if key not in cls._kept:
            for old in cls._kept.values():
                if old._child is not None and not old._child.ended:
                    old._child.end()
            cls._kept.clear()
            cls._kept[key] = cls(start)
        return cls._kept[key]


def _run_task(key: int, start: bytes, job: Job) -> bytes:
    return Minder.of_process(key, start).run(job)


class RayCrew:
    """Tasks or actors of a cluster.

    Raises:
        MissingPartError: ray is not installed.
        ClusterError: no cluster answers, or it has no room.
    """

    def __init__(self, start: bytes, spread: Spread, *, items: int, holds_model: bool) -> None:
        self._ray = _import_ray()
        self._began = _connect(spread.address)
        self._holds_model = holds_model
        self._gpus = spread.gpus_per_actor
        try:
            self.size = max(1, min(items, self._room_for(spread)))
            self._start = self._put(start)
        except BaseException:
            self.close()
            raise
        self._task = self._ray.remote(num_cpus=1, max_retries=0)(_run_task)
        self._key = time.monotonic_ns()
        self._jobs: dict[Any, tuple[int, Any]] = {}
        self._hiring: dict[Any, tuple[Any, float]] = {}
        self._idle: list[Any] = []
        self._alone_since = time.monotonic()

    def _room_for(self, spread: Spread) -> int:
        resources = self._ray.cluster_resources()
        room = cpus = int(resources.get("CPU", 0))
        if not self._holds_model:
            return spread.workers or room
        if self._gpus:
            room = min(room, int(resources.get("GPU", 0) / self._gpus + 1e-6))
        if room < 1:
            raise ClusterError(
                f"the Ray cluster has no room for one actor of 1 CPU and {self._gpus:g} GPU: it has {cpus} CPU and "
                f"{resources.get('GPU', 0):g} GPU; lower --gpus-per-actor or add nodes"
            )
        return min(spread.actors or spread.workers or room, room)

    def _put(self, start: bytes) -> ObjectRef:
        """Share the function with all nodes.

        Raises:
            ClusterError: it does not fit into the object store of a node.
        """
        stores = [node["Resources"].get("object_store_memory", 0.0) for node in self._ray.nodes() if node["Alive"]]
        needed, smallest = len(start) + _SPARE, min(stores, default=0.0)
        if smallest < needed:
            raise ClusterError(
                f"Ray's object store is too small: the model needs {needed / 2**20:.0f} MB, a node has "
                f"{smallest / 2**20:.0f} MB; start Ray with --object-store-memory {needed * 2}, or leave --ray out"
            )
        return self._ray.put(start)

    def room(self, waiting: int) -> int:
        """Hire actors for the jobs that wait, and say how many jobs may be handed out."""
        if not self._holds_model:
            return min(waiting, self.size - len(self._jobs))
        while len(self._hiring) + len(self._idle) + len(self._jobs) < min(self.size, len(self._jobs) + waiting):
            actor = self._ray.remote(Minder).options(num_cpus=1, num_gpus=self._gpus, max_restarts=0)
            hired = actor.remote(self._start)
            self._hiring[hired.ready.remote()] = (hired, time.monotonic() + START_LIMIT_S)
        return min(waiting, len(self._idle))

    def hand_out(self, job: Job) -> None:
        """Submit a job."""
        if self._holds_model:
            actor = self._idle.pop()
            self._jobs[actor.run.remote(job)] = (job.index, actor)
        else:
            self._jobs[self._task.remote(self._key, self._start, job)] = (job.index, None)

    def wait(self) -> list[Answer]:
        """Collect what is ready, one by one: a lost worker costs its own job alone."""
        pending = [*self._jobs, *self._hiring]
        ready, _ = self._ray.wait(pending, num_returns=1, timeout=_WAIT_S) if pending else ([], [])
        answers = []
        for reference in ready:
            if reference in self._hiring:
                self._greet(reference)
            else:
                answers.append(self._collect(reference))
        self._check_staff()
        return answers

    def _greet(self, reference: ObjectRef) -> None:
        actor, _ = self._hiring.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            return  # its node went away meanwhile: ``room`` hires another
        except self._ray.exceptions.RayTaskError as error:
            raise ClusterError(one_line(error.cause if isinstance(error.cause, TcamError) else error)) from None
        self._idle.append(actor)

    def _collect(self, reference: ObjectRef) -> Answer:
        index, actor = self._jobs.pop(reference)
        try:
            answer: Answer = pickle.loads(self._ray.get(reference))  # noqa: S301 (from our own worker)
        except self._ray.exceptions.RayTaskError as error:
            return Answer(index, "failed", one_line(error))
        except self._ray.exceptions.RayError as error:
            return Answer(index, "died", f"its Ray worker or node was lost ({type(error).__name__})")
        if actor is not None:
            self._idle.append(actor)
        return answer

    def _check_staff(self) -> None:
        """Give up where nobody works and nobody comes.

        Raises:
            ClusterError: no node takes an actor.
        """
        if self._jobs or self._idle or not self._hiring:
            return
        if time.monotonic() > min(until for _, until in self._hiring.values()):
            raise ClusterError(
                f"no Ray node had room for an actor (1 CPU, {self._gpus:g} GPU) within {START_LIMIT_S:.0f} s: wait for "
                "other jobs to end, or add nodes"
            )

    def close(self) -> None:
        """End our workers, and the cluster where we started it."""
        for reference, (_, actor) in getattr(self, "_jobs", {}).items():
            if actor is None:
                self._ray.cancel(reference, force=True)
            else:
                self._ray.kill(actor)
        for actor in [*getattr(self, "_idle", []), *(hired for hired, _ in getattr(self, "_hiring", {}).values())]:
            self._ray.kill(actor)
        if self._began:
            leave_ray()


@contextmanager
def joined(address: str | None) -> Iterator[None]:
    """Stay in a cluster for several maps within the block: starting a Ray takes seconds.

    Raises:
        MissingPartError: ray is not installed.
        ClusterError: no cluster answers, or none can be started.
    """
    _import_ray()
    began = _connect(address)
    try:
        yield
    finally:
        if began:
            leave_ray()


def set_ray_up() -> None:
    """Set what Ray reads from the environment, before it is imported or started."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray will do: silences a warning
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 lets its workers starve on a busy machine
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # 30 by itself: too few on a busy machine


def leave_ray() -> None:
    """Leave the cluster; where this process started it, no process of it is left (some outlive Ray by seconds)."""
    import ray

    started = _below_this_process(("raylet", "gcs_server", "ray::"))
    ray.shutdown()
    until = time.monotonic() + _LEAVE_S
    while time.monotonic() < until and any(_alive(*one) for one in started):
        time.sleep(0.05)
    for process, began in started:
        if _alive(process, began):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def _below_this_process(names: tuple[str, ...]) -> list[tuple[int, str]]:
    """List the processes that descend from this one and are called so, with the moment each began (Linux)."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = []
    for process in parents:
        above = parents[process]
        while above in parents and above != os.getpid():
            above = parents[above]
        with suppress(OSError):
            command = Path(f"/proc/{process}/cmdline").read_text(errors="replace")
            if above == os.getpid() and any(name in command for name in names):
                found.append((process, _birth(process)))
    return found


def _birth(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _alive(process: int, began: str) -> bool:
    return began != "" and _birth(process) == began


def _import_ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise MissingPartError(
            f"--ray needs the package ray, which cannot be imported ({one_line(error)}): pip install 'tcam[ray]', or "
            "leave --ray out: --workers N uses the processors of this machine"
        ) from None
    module: ModuleType = ray
    return module


def _connect(address: str | None) -> bool:
    """Start or join a cluster; gives whether we did (and must leave again): an open connection is used as it is.

    Raises:
        ClusterError: no cluster answers, or none can be started.
    """
    import ray

    if ray.is_initialized():
        return False
    _knock(address)
    set_ray_up()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {"include_dashboard": False, "object_store_memory": _STORE}
    try:
        ray.init(address=address or "local", **options)
    except (ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
        ray.shutdown()
        what = f"no Ray cluster answers at {address}" if address else "Ray cannot be started"
        raise ClusterError(f"{what} ({one_line(error)[:150]}); {_REMEDY}") from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return True


_REMEDY: Final = (
    "start one with 'ray start --head', or leave --ray and --ray-address out: --workers N uses this machine"
)


def _knock(address: str | None) -> None:
    """Try the port of an address: Ray itself would try for a minute."""
    host, _, port = (address or "").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise ClusterError(f"no Ray cluster answers at {address} ({error.strerror or error}); {_REMEDY}") from None
