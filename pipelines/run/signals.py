"""How this process ends: SIGINT and SIGTERM as one exception, raised at once or, inside ``finishing``, later."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Final, NoReturn

GRACE_S: Final = 8.0
"""Seconds from the first signal to the hard end: people and schedulers wait for about ten."""

_CHILD_ENDED: Final[signal.Signals | None] = getattr(signal, "SIGCHLD", None)


class Interrupted(BaseException):
    """Someone wants this process to end; no ``Exception``, so that nobody takes it for a failure of one video."""

    def __init__(self, signum: int) -> None:
        super().__init__(_describe(signum))
        self.exit_code = 128 + signum


@dataclass
class _State:
    """What this process knows of signals; there is one, as a process has one set of handlers."""

    signum: int | None = None
    holding: int = 0
    advice: str = ""


_state = _State()


@contextmanager
def raising_signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into ``Interrupted`` within the block; later ones change nothing.

    A process that is still there ``GRACE_S`` after the first one (a step of minutes, a hanging decoder) ends hard, its
    children with it. Children that the same signal ended make no error any more (torch raises one, anywhere, when a
    loader's worker ends). A signal that was ignored before, as in a background shell, stays ignored.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    hard_end = threading.Timer(GRACE_S, end_hard)
    hard_end.daemon = True
    child_watch = None
    _state.signum, _state.holding, _state.advice = None, 0, ""

    def on_signal(signum: int, _: FrameType | None) -> None:
        nonlocal child_watch
        if _state.signum is not None:
            return  # a terminal, its shell and a launcher may all pass on the same wish
        if _CHILD_ENDED is not None:
            child_watch = signal.signal(_CHILD_ENDED, _take_no_notice)
        _state.signum = signum
        hard_end.start()
        if not _state.holding:
            raise Interrupted(signum)

    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, on_signal)
        yield
    finally:
        hard_end.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
        if child_watch is not None and _CHILD_ENDED is not None:
            signal.signal(_CHILD_ENDED, child_watch)
        _state.signum = None


def _take_no_notice(_signum: int, _frame: FrameType | None) -> None:
    """Handle the end of a child: with SIG_DFL, Python would complain of one that had ended just before."""


@contextmanager
def finishing() -> Iterator[None]:
    """Let the block end before a signal takes effect.

    Raises:
        Interrupted: after the block, where a signal came.
    """
    _state.holding += 1
    try:
        yield
    finally:
        _state.holding -= 1
    raise_if_interrupted()


def raise_if_interrupted() -> None:
    """Do what a signal asked for, where one came.

    Raises:
        Interrupted: one came.
    """
    if _state.signum is not None and not _state.holding:
        raise Interrupted(_state.signum)


def interrupted_by() -> int | None:
    """Return the number of the signal that came, or None."""
    return _state.signum


def wish_to_end(signum: int) -> None:
    """Act as if a signal had come: another process got it and passed it on."""
    _state.signum = signum


def advise(text: str) -> None:
    """Describe what the user can do after an interrupt from now on, such as how to resume."""
    _state.advice = text


def end_children() -> None:
    """Kill the child processes that ``multiprocessing`` started: a loader's worker may hang in a decoder."""
    for child in multiprocessing.active_children():
        child.kill()


def end_as_it_is(code: str | int | None) -> NoReturn:
    """End this process as ``sys.exit`` does, but without taking it down: native threads may still run.

    Exit handlers are called and standard streams flushed; nothing is freed.
    """
    if isinstance(code, str):
        print(code, file=sys.stderr)  # noqa: T201 (as the interpreter does)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # a closed pipe, or no stream at all
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _describe(signum: int) -> str:
    return f"tcam: interrupted by {signal.Signals(signum).name}" + (f"; {_state.advice}" if _state.advice else "")


def end_hard() -> None:
    """End this process and its children at once, with the line and the exit code of its signal."""
    signum = _state.signum or signal.SIGTERM
    end_children()
    sys.stderr.flush()
    os.write(2, f"{_describe(signum)}\n".encode())
    os._exit(128 + signum)
