"""Run one function over many items, in order and lazily: in this process, in child processes, or on a Ray cluster.

One scheduler serves all three: it hands items out, bounds the results that wait for their turn, repeats once what a
dead worker left, and counts. Who works is a ``WorkerPool``: ``_Here`` below, ``processes.py``, ``ray.py``.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from pipelines.parallel.placement import Placement
from pipelines.parallel.pool import Task, TaskResult, WorkerPool, one_thread
from pipelines.run.progress import Progress
from tcam.errors import one_line

A = TypeVar("A")
B = TypeVar("B")

_AHEAD: Final = 4
"""Items begun beyond the first unfinished one, per worker: bounds the results waiting for their turn."""
_TRIES: Final = 2
"""How often an item is begun whose worker dies: a machine may go down, but a poisonous file must not go round."""


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """One item that gave no result, and why, in one line."""

    item_index: int
    reason: str


def ordered_map(
    start: Callable[[], Callable[[A], B]],
    items: Sequence[A],
    *,
    placement: Placement,
    time_limit_s: float | Callable[[A], float],
    memory_limit_mb: float | None = None,
    holds_model: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[B | ItemFailure]:
    """Return the result of every item, in order; one that raises, hangs, kills its process or eats memory fails alone.

    Args:
        start: gives the function of one item; every worker calls it once, so it is the place to load a model. It, the
            items and the results must pickle, unless this process works itself.
        items: what to work on; ``str(item)`` names one to people.
        placement: where the work is done. This process alone keeps neither limit.
        time_limit_s: wall clock per item, or a function that gives it.
        memory_limit_mb: resident memory of a worker; None sets no bound (there is none but on Linux either).
        holds_model: on Ray, work in actors that live as long as the map instead of tasks.
        progress: told after every item.

    Yields:
        The results, or an ``ItemFailure`` in place of one. An item whose worker died is begun once more.

    Raises:
        TcamError: no workers can be had at all.
    """
    limit = time_limit_s if callable(time_limit_s) else lambda _item: time_limit_s
    memory = 0 if memory_limit_mb is None else int(memory_limit_mb * 2**20)
    work: _Work[A, B] = _Work(items, limit=limit, memory_limit=memory, report=progress)
    return work.run(lambda: _find_pool(start, placement, len(items), holds_model)) if items else iter(())


@contextmanager
def staying(placement: Placement) -> Iterator[None]:
    """Stay in the cluster, where there is one, for several maps within the block."""
    if not placement.ray:
        yield
        return
    from pipelines.parallel.cluster import joined

    with joined(placement.address):
        yield


def _find_pool(
    start: Callable[[], Callable[[A], B]], placement: Placement, items: int, holds_model: bool
) -> WorkerPool:
    if placement.here:
        return _Here(start)
    packed = pickle.dumps(start)
    if placement.ray:
        from pipelines.parallel.ray import RayPool

        return RayPool(packed, placement, items=items, holds_model=holds_model)
    from pipelines.parallel.processes import ProcessPool

    return ProcessPool(packed, min(placement.workers or 1, items))


class _Here(Generic[A, B]):
    """This process as a pool of one, which keeps neither limit."""

    size = 1

    def __init__(self, start: Callable[[], Callable[[A], B]]) -> None:
        self._start = start
        self._function: Callable[[A], B] | None = None
        self._task: Task | None = None

    def room(self, waiting: int) -> int:
        return min(waiting, int(self._task is None))

    def submit(self, task: Task) -> None:
        self._task = task

    def wait(self) -> list[TaskResult]:
        if self._task is None:
            return []
        task, self._task = self._task, None
        if self._function is None:
            self._function = self._start()
        try:
            with one_thread():
                return [TaskResult(task.index, "done", self._function(task.item))]  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001, RUF100  # one bad item must not end the others
            return [TaskResult(task.index, "failed", one_line(error))]

    def close(self) -> None:
        self._function = None


class _Work(Generic[A, B]):
    """The items, what has been begun, what waits for its turn, and the count."""

    def __init__(
        self,
        items: Sequence[A],
        *,
        limit: Callable[[A], float],
        memory_limit: int,
        report: Callable[[Progress], None] | None,
    ) -> None:
        self._items, self._limit, self._memory_limit, self._report = items, limit, memory_limit, report
        self._again: deque[int] = deque()
        self._begun_at: dict[int, float] = {}
        self._tries: dict[int, int] = {}
        self._results: dict[int, B | ItemFailure] = {}
        self._begun = self._given = self._done = self._failed = 0
        self._slowest = (0.0, "")
        self._since = time.monotonic()

    def run(self, find_pool: Callable[[], WorkerPool]) -> Iterator[B | ItemFailure]:
        """Return the results in order; ends the pool whichever way it is left."""
        pool = find_pool()
        try:
            while self._given < len(self._items):
                if self._given in self._results:
                    result = self._results.pop(self._given)
                    self._given += 1
                    yield result
                    continue
                self._submit(pool)
                for answer in pool.wait():
                    self._note(answer)
        finally:
            pool.close()

    def _submit(self, pool: WorkerPool) -> None:
        bound = min(len(self._items), self._given + _AHEAD * pool.size)
        waiting = len(self._again) + bound - self._begun
        for _ in range(pool.room(waiting)):
            if self._again:
                index = self._again.popleft()
            else:
                index, self._begun = self._begun, self._begun + 1
            item = self._items[index]
            self._begun_at[index] = time.monotonic()
            self._tries[index] = self._tries.get(index, 0) + 1
            pool.submit(Task(index, item, self._limit(item), self._memory_limit))

    def _note(self, answer: TaskResult) -> None:
        index = answer.index
        if answer.kind == "died" and self._tries[index] < _TRIES:
            self._again.append(index)
            return
        took = time.monotonic() - self._begun_at.pop(index)
        self._slowest = max(self._slowest, (took, str(self._items[index])))
        self._done += 1
        if answer.kind == "done":
            self._results[index] = answer.value  # type: ignore[assignment]
        else:
            twice = ", twice" if answer.kind == "died" else ""
            self._failed += 1
            self._results[index] = ItemFailure(index, f"{answer.value}{twice}")
        if self._report is not None:
            slowest_s, slowest = self._slowest
            elapsed = time.monotonic() - self._since
            self._report(Progress(self._done, self._failed, len(self._items), elapsed, slowest, slowest_s))
