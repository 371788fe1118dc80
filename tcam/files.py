"""Write files atomically: under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tcam.errors import DataError, VideoError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; on a clean exit its file is flushed to disk and replaces ``path``.

    Raises:
        DataError: the disk is full or the folder cannot be written.
        VideoError: the name is too long.
    """
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        publish(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> DataError:
    """Return the error for a file that could not be written; a ``VideoError`` if its name is too long."""
    if error.errno == errno.ENAMETOOLONG:
        found = f"{path.name[:40]}..., {len(os.fsencode(path.name))} bytes and a few more while it is written"
        return VideoError(f"the name of its output is too long for the file system ({found}): rename the video")
    return DataError(f"cannot write {path}: {error.strerror or error}; free space or choose another folder")


def file_size(path: Path) -> int:
    """Return the size of a file in bytes; 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def temporary_name(path: Path) -> Path:
    """Return the temporary name of ``path``: hidden, in the same folder, with this process's number."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def sweep_leftovers(folder: Path, *, name: str | None = None) -> None:
    """Remove temporary files that killed processes left below a folder; those of running processes stay.

    With a ``name``, such as ``boxes.csv``, only temporary files of that file in the folder itself are removed. Files
    with this process's own number count as left over, because a restarted container uses the same number again. So
    call it before writing.
    """
    find = folder.rglob if name is None else folder.glob
    known = "*" if name is None else f"{glob.escape(name)}*"
    for path in [*find(f".{known}.tmp"), *find(f".{known}.part")]:
        owner = re.search(r"\.(\d+)\.(tmp|part)$", path.name)
        if owner is not None and (int(owner[1]) == os.getpid() or not _is_alive(int(owner[1]))):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def _is_alive(process: int) -> bool:
    if os.name == "nt":
        return True  # there os.kill would end it
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # someone else's
    return True


def publish(temporary: Path, path: Path) -> None:
    """Flush a finished temporary file to disk and rename it; readers see either the old file or the new one.

    Raises:
        OSError: it cannot be written or renamed.
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
