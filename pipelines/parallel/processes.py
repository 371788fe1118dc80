"""Child processes that may hang, crash or use too much memory: a single one (``Child``), or several as a pool.

A child starts fresh (decoders do not survive a fork), holds one function, processes one item at a time, and ends with
its parent, however the parent ends.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from multiprocessing import connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Final

from pipelines.parallel.pool import Task, TaskResult, one_thread
from pipelines.run.memory import resident_bytes, return_freed_memory
from tcam.errors import TcamError, one_line

START_LIMIT_S: Final = 600.0
_WATCH_S: Final = 0.2
"""Seconds between two checks of the memory of busy children."""

_SHARED: Final = ("pipelines.pipeline", "pipelines.inference.videos", "tcam.boxes.components_sweep")
"""Modules that children import, above all torch and timm, which take seconds."""


def fresh_start() -> ForkServerContext | SpawnContext:
    """Return the start method of children: a process that has computed and opened nothing.

    On Linux, children are forked from a server process that has only imported modules. Elsewhere every child imports
    for itself, because native libraries do not survive a fork there.
    """
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name for name in _SHARED if name in sys.modules])
    return context


class Child:
    """One child process and the task it works on (None: idle or starting)."""

    def __init__(self, start: bytes) -> None:
        context = fresh_start()
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, start), daemon=True)
        self._process.start()
        theirs.close()
        self._deadline = time.monotonic() + START_LIMIT_S
        self._answered = False
        self.ready = False
        self.task: Task | None = None

    @property
    def idle(self) -> bool:
        """Whether it waits for a task."""
        return self.ready and self.task is None

    def begin(self, task: Task) -> None:
        """Send a task; its time limit runs from now."""
        self.task = task
        self._deadline = time.monotonic() + task.time_limit_s
        try:
            self.pipe.send_bytes(pickle.dumps((task.item, task.memory_limit)))
        except OSError:
            self._deadline = 0.0  # it died while idle: the next look finds out

    def look(self) -> TaskResult | None:
        """Return the answer if it has arrived, or a failure if the child is beyond its limits; None otherwise.

        Raises:
            TcamError: it could not start.
        """
        limit = self.task.memory_limit if self.task is not None else 0
        if limit and resident_bytes(self._process.pid or 0) > limit:
            return self._give_up("failed", f"it needed more than {limit / 2**20:.0f} MB of memory and was stopped")
        try:
            if self.pipe.poll():
                return self._read(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self._process.join(5)
            return self._give_up("died", f"its process ended ({_describe_exit(self._process.exitcode)})")
        if time.monotonic() >= self._deadline and (self.task is not None or not self.ready):
            return self._give_up("failed", "it took longer than its time limit and was stopped")
        return None

    @property
    def ended(self) -> bool:
        """Whether it must be replaced by another child."""
        return self.pipe.closed

    def end(self) -> None:
        """Kill it, busy or not."""
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def _read(self, message: bytes) -> TaskResult | None:
        kind, value = pickle.loads(message)  # noqa: S301 (from our own child)
        if not self.ready:
            if kind != "ready":
                self.end()
                raise TcamError(f"a worker cannot start: {value}")
            self.ready = True
            return None
        index, self.task = self.task.index if self.task is not None else -1, None
        return TaskResult(index, kind, value)

    def _give_up(self, kind: str, reason: str) -> TaskResult:
        self.end()
        if self.task is None:
            raise TcamError(
                f"child processes cannot be started ({reason}): a script must guard its start with "
                'if __name__ == "__main__", or ask for 0 workers'
            )
        return TaskResult(self.task.index, "died" if kind == "died" else "failed", reason)


class ProcessPool:
    """Children of this process."""

    def __init__(self, start: bytes, size: int) -> None:
        self._start, self.size = start, size
        self._children: list[Child] = []

    def room(self, waiting: int) -> int:
        """Start children for the waiting tasks; return how many children are idle."""
        busy = sum(child.task is not None for child in self._children)
        while len(self._children) < min(self.size, busy + waiting):
            self._children.append(Child(self._start))
        return min(waiting, sum(child.idle for child in self._children))

    def submit(self, task: Task) -> None:
        """Send a task to an idle child."""
        next(child for child in self._children if child.idle).begin(task)

    def wait(self) -> list[TaskResult]:
        """Wait for answers, children that end, and deadlines."""
        busy = [child for child in self._children if not child.idle]
        connection.wait([child.pipe for child in busy], timeout=_WATCH_S)
        answers = [child.look() for child in busy]
        self._children = [child for child in self._children if not child.ended]
        return [answer for answer in answers if answer is not None]

    def close(self) -> None:
        """End all children."""
        for child in self._children:
            if not child.ended:
                child.end()


def _serve(pipe: connection.Connection, start: bytes) -> None:
    """Serve tasks in the child until the parent closes the pipe or has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"  # for a torch that is loaded later
    try:
        with one_thread():
            function = pickle.loads(start)()  # noqa: S301 (from our own parent)
    except Exception as error:  # noqa: BLE001, RUF100  # reported: no child can start
        pipe.send_bytes(pickle.dumps(("failed", one_line(error))))
        return
    pipe.send_bytes(pickle.dumps(("ready", None)))
    while True:
        try:
            message = pipe.recv_bytes()
        except EOFError:
            return
        memory_limit = 0
        try:
            item, memory_limit = pickle.loads(message)  # noqa: S301 (from our own parent)
            with one_thread():
                answer = pickle.dumps(("done", function(item)))
        except Exception as error:  # noqa: BLE001, RUF100  # reported as this item's failure
            answer = pickle.dumps(("failed", one_line(error)))
        pipe.send_bytes(answer)
        if memory_limit and resident_bytes() > memory_limit / 2:
            return_freed_memory()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
        return f"killed by {name}" + (", out of memory? try fewer workers" if name == "SIGKILL" else "")
    return f"exit code {code}"
