"""Run one function over many items, in order and lazily: in this process, in child processes, or on a Ray cluster.

One scheduler serves all three. It submits items, limits how many results wait for their turn, repeats once the items of
a worker that died, and reports progress. The work is done by a ``WorkerPool``: ``_Here`` below, ``processes.py`` or
``ray.py``.
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
"""Items started beyond the first unfinished one, per worker: limits the results that wait for their turn."""
_TRIES: Final = 2
"""How often an item is started if its worker dies: a machine may fail, but a file may also crash every worker."""


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """An item without a result, and the reason in one line."""

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
    """Yield the result of every item, in order; one that raises, hangs, crashes or exceeds its memory fails on its own.

    Args:
        start: returns the function for one item. Every worker calls it once, so it is the place to load a model. It,
            the items and the results must be picklable, unless the work is done in this process.
        items: the items; ``str(item)`` is the name shown to users.
        placement: where the work is done. In this process the two limits below do not apply.
        time_limit_s: wall clock per item in seconds, or a function that returns it.
        memory_limit_mb: resident memory of a worker; None sets no limit. It applies on Linux only.
        holds_model: on Ray, use actors that live as long as the map instead of tasks.
        progress: called after every item.

    Yields:
        The results, with an ``ItemFailure`` in place of each that failed. An item whose worker died is repeated once.

    Raises:
        TcamError: no worker could be started.
    """
    limit = time_limit_s if callable(time_limit_s) else lambda _item: time_limit_s
    memory = 0 if memory_limit_mb is None else int(memory_limit_mb * 2**20)
    work: _Work[A, B] = _Work(items, limit=limit, memory_limit=memory, report=progress)
    return work.run(lambda: _find_pool(start, placement, len(items), holds_model)) if items else iter(())


@contextmanager
def staying(placement: Placement) -> Iterator[None]:
    """Keep the Ray cluster, if one is used, for several maps within the block."""
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
    """This process as a pool of one worker, without limits."""

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
    """The state of one map: items, started tasks, results that wait for their turn, progress."""

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
        """Yield the results in order; the pool is closed however the generator ends."""
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
