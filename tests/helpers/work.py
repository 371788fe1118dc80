"""Work for other processes; a helper of the tests of ``pipelines.parallel``.

Every one of them imports this file, which therefore imports little.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from tcam.errors import VideoError


def start():
    return work


def work(item: int) -> int:
    """Square small numbers; negative ones misbehave."""
    if item == -1:
        raise VideoError("x.mp4: broken\nhere")
    if item == -2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == -3:
        time.sleep(600)
    if item == -4:
        raise KeyError("oops")
    if item == -5:
        hoard = []
        while True:
            hoard.append(b"x" * 2**24)
            time.sleep(0.002)
    if item == 0:
        time.sleep(0.5)
    return item * item


def start_noting(folder: Path):
    """Leave a file for every start and every begun item."""
    (folder / f"start-{os.getpid()}").touch()
    return partial(note, folder)


def note(folder: Path, item: int) -> int:
    number = next(n for n in itertools.count() if not (folder / f"item-{item}-{n}").exists())
    (folder / f"item-{item}-{number}").touch()
    if item == 3 and number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def start_naming_parents():
    return lambda _item: (os.getppid(), "pipelines.pipeline" in sys.modules)


def cannot_start():
    raise VideoError("no weights here")


def start_waiting(notes: str):
    Path(notes, f"pid-{os.getpid()}").touch()
    return wait_long


def wait_long(item: int) -> None:
    time.sleep(600)
