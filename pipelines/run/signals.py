"""SIGINT and SIGTERM as one exception, raised at once or, inside ``finishing``, at the end of the block."""

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
"""Seconds from the first signal until the process is killed: people and schedulers wait for about ten."""

_CHILD_ENDED: Final[signal.Signals | None] = getattr(signal, "SIGCHLD", None)


class Interrupted(BaseException):
    """A signal asked this process to end. Not an ``Exception``, so that no code takes it for a failed video."""

    def __init__(self, signum: int) -> None:
        super().__init__(_describe(signum))
        self.exit_code = 128 + signum


@dataclass
class _State:
    """The signals that this process has received; there is one, as a process has one set of handlers."""

    signum: int | None = None
    holding: int = 0
    advice: str = ""


_state = _State()


@contextmanager
def raising_signals() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into ``Interrupted`` within the block; later ones have no effect.

    A process that is still running ``GRACE_S`` after the first signal (a step of minutes, a hanging decoder) is killed
    with its children. From the first signal on, children that end raise no error (torch raises one anywhere in the code
    when a loader's worker ends). A signal that was ignored before, as in a background shell, stays ignored.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    hard_end = threading.Timer(GRACE_S, end_hard)
    hard_end.daemon = True
    child_watch = None
    _state.signum, _state.holding, _state.advice = None, 0, ""

    def on_signal(signum: int, _: FrameType | None) -> None:
        nonlocal child_watch
        if _state.signum is not None:
            return  # a terminal, its shell and a launcher may all send the same signal
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
    """Let the block finish before a signal takes effect.

    Raises:
        Interrupted: after the block, if a signal arrived within it.
    """
    _state.holding += 1
    try:
        yield
    finally:
        _state.holding -= 1
    raise_if_interrupted()


def raise_if_interrupted() -> None:
    """Raise if a signal has arrived.

    Raises:
        Interrupted: a signal has arrived.
    """
    if _state.signum is not None and not _state.holding:
        raise Interrupted(_state.signum)


def interrupted_by() -> int | None:
    """Return the number of the signal that has arrived, or None."""
    return _state.signum


def wish_to_end(signum: int) -> None:
    """Act as if a signal had arrived: another process received it and passed it on."""
    _state.signum = signum


def advise(text: str) -> None:
    """Set the advice printed after an interrupt from now on, such as how to resume."""
    _state.advice = text


def end_children() -> None:
    """Kill the child processes that ``multiprocessing`` started: a loader's worker may hang in a decoder."""
    for child in multiprocessing.active_children():
        child.kill()


def end_as_it_is(code: str | int | None) -> NoReturn:
    """End this process like ``sys.exit``, but without freeing anything, because native threads may still run.

    Exit handlers are called and the standard streams flushed.
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
    """Kill the children and end this process at once, with the message and the exit code of its signal."""
    signum = _state.signum or signal.SIGTERM
    end_children()
    sys.stderr.flush()
    os.write(2, f"{_describe(signum)}\n".encode())
    os._exit(128 + signum)
