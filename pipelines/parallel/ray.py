"""A Ray cluster as a pool: tasks for work without a model, actors for work with one. The only user of ray.

A Ray worker does no work itself. It manages one child process (``processes.Child``), so that limits, crashes and their
messages are the same as on one machine. Tasks and results are small; frames are never sent. Signals wait until a call
of Ray returns, because an exception raised within it would come out as a ``SystemError``.
"""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pipelines.parallel.cluster import ClusterError, connect_ray, import_ray, leave_ray
from pipelines.parallel.placement import Placement
from pipelines.parallel.pool import Task, TaskResult
from pipelines.parallel.processes import Child
from pipelines.run.signals import finishing
from tcam.errors import TcamError, one_line

if TYPE_CHECKING:
    from ray import ObjectRef

START_LIMIT_S: Final = 600.0
_WAIT_S: Final = 0.2
_SPARE: Final = 30 * 2**20


class Minder:
    """Runs in a Ray worker: keeps one child process that holds the function, and sends it one task at a time."""

    _kept: ClassVar[dict[int, Minder]] = {}

    def __init__(self, start: bytes) -> None:
        self._start = start
        self._child: Child | None = None

    def ready(self) -> bool:
        """Start the child; once this returns, the actor is ready.

        Raises:
            TcamError: it cannot start.
        """
        self._child = self._child if self._child is not None and not self._child.ended else Child(self._start)
        while not self._child.ready:
            self._child.pipe.poll(_WAIT_S)
            self._child.look()
        return True

    def run(self, task: Task) -> bytes:
        """Return the pickled answer of one task."""
        try:
            self.ready()
        except TcamError as error:
            return pickle.dumps(TaskResult(task.index, "failed", one_line(error)))
        child = self._child
        if child is None:
            raise AssertionError("a minder that is ready has a child")
        child.begin(task)
        while True:
            child.pipe.poll(_WAIT_S)
            answer = child.look()
            if answer is not None:
                return pickle.dumps(answer)

    @classmethod
    def of_process(cls, key: int, start: bytes) -> Minder:
        """Return the minder of this Ray worker for the tasks of one map; the minder of an older map is closed."""
        if key not in cls._kept:
            for old in cls._kept.values():
                if old._child is not None and not old._child.ended:
                    old._child.end()
            cls._kept.clear()
            cls._kept[key] = cls(start)
        return cls._kept[key]


def _run_task(key: int, start: bytes, task: Task) -> bytes:
    return Minder.of_process(key, start).run(task)


class RayPool:
    """Tasks or actors of a cluster.

    Raises:
        MissingPartError: ray is not installed.
        ClusterError: no cluster answers, or it has no room.
    """

    def __init__(self, start: bytes, placement: Placement, *, items: int, holds_model: bool) -> None:
        self._ray = import_ray()
        self._address = placement.address
        self._began = connect_ray(self._address)
        self._holds_model = holds_model
        self._gpus = placement.gpus_per_actor
        try:
            self.size = max(1, min(items, self._room_for(placement)))
            self._start = self._put(start)
        except BaseException:
            self.close()
            raise
        self._function = self._ray.remote(num_cpus=1, max_retries=0)(_run_task)
        self._key = time.monotonic_ns()
        self._tasks: dict[Any, tuple[int, Any]] = {}
        self._hiring: dict[Any, tuple[Any, float]] = {}
        self._idle: list[Any] = []
        self._alone_since = time.monotonic()

    def _room_for(self, placement: Placement) -> int:
        resources = self._ray.cluster_resources()
        room = cpus = int(resources.get("CPU", 0))
        if not self._holds_model:
            return placement.workers or room
        if self._gpus:
            room = min(room, int(resources.get("GPU", 0) / self._gpus + 1e-6))
        if room < 1:
            raise ClusterError(
                f"the Ray cluster has no room for one actor of 1 CPU and {self._gpus:g} GPU: it has {cpus} CPU and "
                f"{resources.get('GPU', 0):g} GPU; lower --gpus-per-actor or add nodes"
            )
        return min(placement.actors or placement.workers or room, room)

    def _put(self, start: bytes) -> ObjectRef[Any]:
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
        shared: ObjectRef[Any] = self._ray.put(start)
        return shared

    def room(self, waiting: int) -> int:
        """Start actors for the waiting tasks; return how many tasks may be submitted."""
        with finishing():
            if not self._holds_model:
                return min(waiting, self.size - len(self._tasks))
            while len(self._hiring) + len(self._idle) + len(self._tasks) < min(self.size, len(self._tasks) + waiting):
                actor = self._ray.remote(Minder).options(num_cpus=1, num_gpus=self._gpus, max_restarts=0)
                hired = actor.remote(self._start)
                self._hiring[hired.ready.remote()] = (hired, time.monotonic() + START_LIMIT_S)
            return min(waiting, len(self._idle))

    def submit(self, task: Task) -> None:
        """Submit a task."""
        with finishing():
            if self._holds_model:
                actor = self._idle.pop()
                self._tasks[actor.run.remote(task)] = (task.index, actor)
            else:
                self._tasks[self._function.remote(self._key, self._start, task)] = (task.index, None)

    def wait(self) -> list[TaskResult]:
        """Collect finished tasks one by one, so that a lost worker costs only its own task."""
        with finishing():
            pending = [*self._tasks, *self._hiring]
            ready, _ = self._ray.wait(pending, num_returns=1, timeout=_WAIT_S) if pending else ([], [])
            answers = []
            for reference in ready:
                if reference in self._hiring:
                    self._greet(reference)
                else:
                    answers.append(self._collect(reference))
            self._check_staff()
            return answers

    def _greet(self, reference: ObjectRef[Any]) -> None:
        actor, _ = self._hiring.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            return  # its node went away meanwhile: ``room`` hires another
        except self._ray.exceptions.RayTaskError as error:
            raise ClusterError(one_line(error.cause if isinstance(error.cause, TcamError) else error)) from None
        self._idle.append(actor)

    def _collect(self, reference: ObjectRef[Any]) -> TaskResult:
        index, actor = self._tasks.pop(reference)
        try:
            answer: TaskResult = pickle.loads(self._ray.get(reference))  # noqa: S301 (from our own worker)
        except self._ray.exceptions.RayTaskError as error:
            return TaskResult(index, "failed", one_line(error))
        except self._ray.exceptions.RayError as error:
            return TaskResult(index, "died", f"its Ray worker or node was lost ({type(error).__name__})")
        if actor is not None:
            self._idle.append(actor)
        return answer

    def _check_staff(self) -> None:
        """Raise if no actor works and none can be started.

        Raises:
            ClusterError: no node takes an actor.
        """
        if self._tasks or self._idle or not self._hiring:
            return
        if time.monotonic() > min(until for _, until in self._hiring.values()):
            raise ClusterError(
                f"no Ray node had room for an actor (1 CPU, {self._gpus:g} GPU) within {START_LIMIT_S:.0f} s: wait for "
                "other tasks to end, or add nodes"
            )

    def close(self) -> None:
        """End the workers, and the cluster if it was started here."""
        for reference, (_, actor) in getattr(self, "_tasks", {}).items():
            if actor is None:
                self._ray.cancel(reference, force=True)
            else:
                self._ray.kill(actor)
        for actor in [*getattr(self, "_idle", []), *(hired for hired, _ in getattr(self, "_hiring", {}).values())]:
            self._ray.kill(actor)
        if self._began:
            leave_ray(self._address)
