"""Run one function over many items in child processes that may hang or die, in order and lazily.

This is the only place that knows how work is spread; another backend (a cluster) belongs here beside the processes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Final, Generic, TypeVar, cast

import torch

from tcam.errors import TcamError

A = TypeVar("A")
B = TypeVar("B")

_START_LIMIT_S: Final = 120.0
_AHEAD: Final = 4
"""Items begun beyond the first unfinished one, per worker: bounds the results waiting for their turn."""


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """One item that gave no result, and why, in one line."""

    item_index: int
    reason: str


def ordered_map(
    task: Callable[[A], B],
    items: Sequence[A],
    *,
    workers: int,
    time_limit_s: float | Callable[[A], float],
    progress: Callable[[int, int], None] | None,
) -> Iterator[B | ItemFailure]:
    """Give ``task(item)`` of every item, in order; an item that raises, hangs or kills its process fails alone.

    Args:
        task: an importable function; it and the items must pickle where ``workers`` is 1 or more.
        items: what to work on.
        workers: child processes; 0 works in this process, where no time limit can be kept.
        time_limit_s: wall clock per item, or a function that gives it.
        progress: called with (done, all) after every item.

    Yields:
        The results, or an ``ItemFailure`` in place of one.

    Raises:
        ValueError: a negative number of workers.
        TcamError: child processes cannot be started at all.
    """
    if workers < 0:
        raise ValueError(f"workers must be 0 or more, got {workers}")
    if workers == 0:
        return _map_here(task, items, progress)
    limit = time_limit_s if callable(time_limit_s) else lambda _item: time_limit_s
    return _Pool(task, items, workers=min(workers, max(len(items), 1)), limit=limit, progress=progress).run()


def _map_here(
    task: Callable[[A], B], items: Sequence[A], progress: Callable[[int, int], None] | None
) -> Iterator[B | ItemFailure]:
    for index, item in enumerate(items):
        try:
            result: B | ItemFailure = task(item)
        except Exception as error:  # noqa: BLE001, RUF100  # one bad item must not end the others
            result = ItemFailure(index, _one_line(error))
        if progress is not None:
            progress(index + 1, len(items))
        yield result


@dataclass
class _Worker:
    """One child, the pipe to it, the item it works on (None: idle or starting) and the moment its time is over."""

    process: multiprocessing.process.BaseProcess
    pipe: connection.Connection
    deadline: float
    ready: bool = False
    index: int | None = None


class _Pool(Generic[A, B]):
    """The parent's side of the children."""

    def __init__(
        self,
        task: Callable[[A], B],
        items: Sequence[A],
        *,
        workers: int,
        limit: Callable[[A], float],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._task, self._items, self._limit, self._progress = task, items, limit, progress
        self._num_workers = workers
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._results: dict[int, B | ItemFailure] = {}
        self._begun = self._given = self._done = 0

    def run(self) -> Iterator[B | ItemFailure]:
        """Give the results in order; ends all children whichever way it is left."""
        try:
            while self._given < len(self._items):
                if self._given in self._results:
                    result = self._results.pop(self._given)
                    self._given += 1
                    yield result
                    continue
                self._staff()
                self._hand_out()
                self._wait()
        finally:
            for worker in self._workers:
                _end(worker)

    def _staff(self) -> None:
        """Start children for the work that is left."""
        busy = sum(worker.index is not None for worker in self._workers)
        wanted = min(self._num_workers, busy + len(self._items) - self._begun)
        while len(self._workers) < wanted:
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=_serve, args=(theirs, self._task), daemon=True)
            process.start()
            theirs.close()
            self._workers.append(_Worker(process, ours, time.monotonic() + _START_LIMIT_S))

    def _hand_out(self) -> None:
        bound = min(len(self._items), self._given + _AHEAD * self._num_workers)
        for worker in self._workers:
            if worker.ready and worker.index is None and self._begun < bound:
                worker.index, self._begun = self._begun, self._begun + 1
                item = self._items[worker.index]
                worker.deadline = time.monotonic() + self._limit(item)
                try:
                    worker.pipe.send(item)
                except OSError:
                    worker.deadline = 0.0  # it died while idle: the wait below finds out

    def _wait(self) -> None:
        """Wait for an answer, an end or a deadline, and note what it was."""
        busy = [worker for worker in self._workers if worker.index is not None or not worker.ready]
        patience = max(min((worker.deadline for worker in busy), default=0.0) - time.monotonic(), 0.0)
        answered = connection.wait([worker.pipe for worker in busy], timeout=min(patience, 60.0))
        for worker in busy:
            if worker.pipe in answered:
                self._listen(worker)
            elif time.monotonic() >= worker.deadline:
                self._give_up(worker, "it took longer than its time limit and was stopped")

    def _listen(self, worker: _Worker) -> None:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(5)
            self._give_up(worker, f"its process ended ({_describe_exit(worker.process.exitcode)})")
            return
        if not worker.ready:
            worker.ready = True
            return
        index, worker.index = cast("int", worker.index), None
        kind, value = message
        self._note(index, ItemFailure(index, value) if kind == "failed" else value)

    def _give_up(self, worker: _Worker, reason: str) -> None:
        _end(worker)
        self._workers.remove(worker)
        if worker.index is None:
            raise TcamError(
                f"child processes cannot be started ({reason}): a script must guard its start with "
                'if __name__ == "__main__", or ask for 0 workers'
            )
        self._note(worker.index, ItemFailure(worker.index, reason))

    def _note(self, index: int, result: B | ItemFailure) -> None:
        self._results[index] = result
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, len(self._items))


def _serve(pipe: connection.Connection, task: Callable[[A], B]) -> None:
    """Work in the child until the parent closes the pipe; leave at once if the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(1)  # the children share the cores; threads of their own only get in each other's way
    pipe.send("ready")
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            answer: tuple[str, object] = ("done", task(item))
        except Exception as error:  # noqa: BLE001, RUF100  # reported as this item's failure
            answer = ("failed", _one_line(error))
        pipe.send(answer)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300] or "no message"
    return text if isinstance(error, TcamError) else f"{type(error).__name__}: {text}"[:300]


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
        return f"killed by {name}" + (", out of memory?" if name == "SIGKILL" else "")
    return f"exit code {code}"
