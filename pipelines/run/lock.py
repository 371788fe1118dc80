"""One process per run folder: the system drops the lock when its owner ends, even by SIGKILL."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from tcam.errors import DataError

_NO_LOCKS_HERE: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a network file system answers that has no locks: the run goes on without one."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder within the block.

    Raises:
        DataError: another process holds the lock, or the folder cannot be written.
    """
    path = folder / ".lock"
    # The soft lock of filelock is a file that outlives its owner: never fall back to it.
    lock = FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        path.touch()  # filelock would make a missing folder
        lock.acquire()
    except Timeout:
        raise DataError(f"{folder} is locked by {_owner(path)}; wait for it, stop it, or train a new run") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise DataError(f"cannot write to the run folder {folder}: {error.strerror}") from None
    try:
        _write_owner(path, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        _write_owner(path, "")
        lock.release()


def _owner(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8") or "another process"
    return "another process"


def _write_owner(path: Path, text: str) -> None:
    with suppress(OSError):  # a full disk: a second process is then not told who holds the lock
        path.write_text(text, encoding="utf-8")
