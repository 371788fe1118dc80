"""Writing files so that they are whole or absent: a temporary name, flushed, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tcam.errors import DataError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; on a clean exit it is flushed to disk and takes ``path``'s place.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        publish(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write {path}: {reason}; free space or choose another folder") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """Name the file that will become ``path``: hidden, in the same folder, of this process."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def publish(temporary: Path, path: Path) -> None:
    """Flush a finished temporary file to the disk and give it its name; a reader sees the old file or the new one.

    Raises:
        OSError: the disk refuses it.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    with suppress(OSError):  # some network disks and systems let no folder be flushed; the file itself is
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
