"""Writing files so that they are whole or absent: a temporary name, flushed, then renamed."""

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
    """Return a temporary name beside ``path``; on a clean exit it is flushed to disk and takes ``path``'s place.

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
    """Describe in one line that a file could not be written, and why; a name that is too long is one video's fault."""
    if error.errno == errno.ENAMETOOLONG:
        found = f"{path.name[:40]}..., {len(os.fsencode(path.name))} bytes and a few more while it is written"
        return VideoError(f"the name of its output is too long for the file system ({found}): rename the video")
    return DataError(f"cannot write {path}: {error.strerror or error}; free space or choose another folder")


def file_size(path: Path) -> int:
    """Return the bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def temporary_name(path: Path) -> Path:
    """Name the file that will become ``path``: hidden, in the same folder, of this process."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def sweep_leftovers(folder: Path, *, name: str | None = None) -> None:
    """Remove what killed processes left below a folder under temporary names; those of living ones stay.

    With a ``name`` only what was to become that file in the folder itself, such as ``boxes.csv``, is looked at. Our
    own process number counts as dead: a restarted container gives the same one again. Call it before writing.
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
