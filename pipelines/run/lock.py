"""One process per run folder: a lock that ends with its owner, however that ends."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tcam.errors import DataError

if sys.platform != "win32":
    import fcntl


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder within the block.

    The system drops the lock when its owner ends, even by SIGKILL, so nothing stale is ever left.

    Raises:
        DataError: another process holds it, or the folder cannot be written.
    """
    try:
        stream = (folder / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write to the run folder {folder}: {error.strerror}") from None
    with stream:
        _take(stream, folder)
        _note(stream, f"process {os.getpid()} on {socket.gethostname()}")
        try:
            yield
        finally:
            _note(stream, "")


def _take(stream: IO[str], folder: Path) -> None:
    if sys.platform == "win32":
        return  # no such lock there
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        owner = stream.read() or "another process"
        raise DataError(f"{folder} is locked by {owner}; wait for it, stop it, or train a new run") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):  # a network disk without locks
            raise DataError(f"cannot lock the run folder {folder}: {error.strerror}") from None


def _note(stream: IO[str], text: str) -> None:
    """Say in the lock file who holds it; on a full disk it stays unsaid."""
    try:
        stream.truncate(0)
        stream.write(text)
        stream.flush()
    except OSError:
        return
