"""Download files, resuming after a lost connection, and unpack archives without writing outside their folder.

pooch would start again at byte 0 after a lost connection (decision 0017).
"""

from __future__ import annotations

import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from tcam.errors import DataError, NetworkError
from tcam.files import file_size

Progress = Callable[[int, int | None], None]
"""Called with (bytes downloaded, all bytes or None if the server does not say)."""

_TIMEOUT_S: Final = 30.0
_ATTEMPTS: Final = 5
_BLOCK: Final = 2**20


def download(url: str, target: Path, *, progress: Progress | None = None) -> None:
    """Download a file; resume from ``<target>.part``, what a lost connection left, also in a later call.

    Args:
        url: http or https.
        target: gets its name only when the file is complete.
        progress: called after each block.

    Raises:
        NetworkError: ``TCAM_OFFLINE=1``, no network, a missing file, or five attempts in a row without a byte.
        DataError: the disk is full or cannot be written.
    """
    if os.environ.get("TCAM_OFFLINE") == "1":
        raise NetworkError(f"TCAM_OFFLINE=1 forbids fetching {url}: unset it, or pass --from FOLDER with the archives")
    part = target.with_name(f"{target.name}.part")
    failed, reason = 0, ""
    while failed < _ATTEMPTS:
        before = file_size(part)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if _fetch(url, part, progress):
                part.replace(target)
                _tag_file(part).unlink(missing_ok=True)
                return
            reason = "the connection was lost"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                part.unlink(missing_ok=True)  # complete but killed before its renaming, or the file has changed
                failed += 1
                continue
            raise NetworkError(f"{url}: the server says {error.code} {error.reason}; {_remedy(part)}") from None
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        except OSError as error:
            raise DataError(f"cannot write {part}: {error.strerror or error}; free space, or set TCAM_DATA") from None
        failed = 0 if file_size(part) > before else failed + 1
    raise NetworkError(f"cannot fetch {url} ({reason}); {_remedy(part)}")


def _remedy(part: Path) -> str:
    kept = f"{file_size(part)} bytes are kept, the same command goes on from there; " if file_size(part) else ""
    return f"{kept}try again, name another host with --url, or pass --from FOLDER with the archives"


def _fetch(url: str, part: Path, progress: Progress | None) -> bool:
    """Append to the part file what the server has beyond it; return whether it is complete."""
    start, tag = file_size(part), _read_tag(part)
    headers = {"User-Agent": "tcam"}
    if start and tag:
        headers |= {"Range": f"bytes={start}-", "If-Range": tag}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # the schemes are those of DATASETS or --url
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0  # start over: the server supports no ranges, or its file has changed
            part.unlink(missing_ok=True)
        _tag_file(part).write_text(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
        length = answer.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with part.open("ab") as file:
            while block := answer.read(_BLOCK):
                file.write(block)
                if progress is not None:
                    progress(file.tell(), total)
            there = file.tell()
    return total is None or there >= total


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _read_tag(part: Path) -> str:
    with suppress(OSError):
        return _tag_file(part).read_text()
    return ""


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive as ``folder``, complete or not at all; an inner folder of the same name is moved up.

    An archive with absolute names, ``..``, links that lead out, or devices is refused as a whole.

    Raises:
        DataError: the archive is damaged or not safe, or the disk is full.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        partial.mkdir(parents=True)
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        inner = partial / folder.name
        (inner if inner.is_dir() else partial).rename(folder)
    except tarfile.FilterError as error:
        raise DataError(f"{archive} is not safe to unpack ({error}): nothing of it is used; fetch it again") from None
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DataError(f"{archive} is not a whole tar archive ({error}): remove it and fetch it again") from None
    except OSError as error:
        what = error.strerror or error
        raise DataError(f"cannot unpack {archive} to {folder}: {what}; free space, or fetch it again") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
