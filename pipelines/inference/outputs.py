"""Check, before anything runs, that no output replaces an input or a file that tcam did not write."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

from pipelines.inference.box_table import sidecar
from pipelines.inference.sinks import SINKS
from pipelines.run.files import write_text
from tcam.errors import ConfigError
from tcam.video.writer import is_drawn

_MARK: Final = ".tcam"
"""File that marks a folder of tcam's results; files in it that have the names of results may be replaced."""
_EXPORT_KEY: Final = b'weights_hash"'
"""Part of the metadata of every exported file; XML escapes the quote."""


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path], *, flag: str) -> None:
    """Refuse outputs that are an input, lie in one (a frame folder), or exist and were not written by tcam.

    Args:
        outputs: the files that a command will write.
        inputs: the files and frame folders that it reads.
        flag: of the command line, for the message.

    Raises:
        ConfigError: an output is refused; the message names the first one.
    """
    sources = {_identity(path): path for path in inputs}
    for output in outputs:
        taken = sources.get(_identity(output)) or next(
            (sources[key] for key in map(_identity, output.absolute().parents) if key in sources), None
        )
        if taken is not None:
            raise ConfigError(
                f"{flag}: {output} would be written over the input {taken}; choose another folder or name"
            )
        if not is_replaceable(output):
            raise ConfigError(
                f"{flag}: {output} exists and was not written by tcam, so it is not replaced; move it, or choose "
                "another name"
            )


def check_output_folder(folder: Path, names: Sequence[str], inputs: Iterable[Path], *, flag: str) -> None:
    """Refuse a folder for results that is an input, lies in one, or holds files of these names that tcam did not write.

    Args:
        folder: where a command will write its results.
        names: of the files and folders that it writes there.
        inputs: files and folders that it reads.
        flag: of the command line, for the message.

    Raises:
        ConfigError: the folder cannot be used.
    """
    sources = {_identity(path): path for path in inputs}
    for place in (folder, *folder.absolute().parents):
        if _identity(place) in sources:
            raise ConfigError(
                f"{flag}: {folder} lies in {sources[_identity(place)]}, which is read: results there would be taken "
                "for part of it; choose a folder outside"
            )
    if (folder / _MARK).is_file():
        return
    for name in names:
        if (folder / name).exists():
            raise ConfigError(
                f"{flag}: {folder / name} exists and was not written by tcam, so it is not replaced; choose another "
                "folder"
            )


def mark_output_folder(folder: Path) -> None:
    """Mark a folder for results as tcam's.

    Raises:
        DataError: it cannot be written.
    """
    if not (folder / _MARK).is_file():
        write_text(folder / _MARK, "Results of tcam; a later run replaces what it finds under the same names.\n")


def free_names(names: Iterable[str], suffix: str, *, reserved: Iterable[str] = ()) -> dict[str, str]:
    """Choose a file name for every video: its own with the suffix, plus a number if that is taken.

    Names that differ only in case or Unicode form count as the same, as they do on some disks.

    Args:
        names: of the videos; one that has the suffix already keeps its name.
        suffix: of the files.
        reserved: file names that are taken.
    """
    taken = {_folded(name) for name in reserved}
    chosen: dict[str, str] = {}
    for name in names:
        stem = name.removesuffix(suffix)
        numbered = (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}" for number in count(1))
        chosen[name] = next(free for free in numbered if _folded(free) not in taken)
        taken.add(_folded(chosen[name]))
    return chosen


def is_replaceable(path: Path) -> bool:
    """Whether a path is unused, an empty file, a device or pipe, or a file that tcam wrote."""
    try:
        if not path.is_file() or path.stat().st_size == 0:
            return not path.is_dir()
    except OSError:
        return True  # an impossible name: writing to it raises the error
    suffix = path.suffix.lower()
    with suppress(OSError, ValueError):
        if suffix in SINKS:  # a truncated table still has its sidecar
            return sidecar(path).is_file() or SINKS[suffix].wrote(path)
        return suffix in _WRITTEN_BY_TCAM and _WRITTEN_BY_TCAM[suffix](path)
    return False


def _identity(path: Path) -> object:
    """Return the same identity for every path to a file: its inode, or its real path if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _is_export(path: Path) -> bool:
    beside = path.with_suffix(".xml")
    content = (beside if path.suffix.lower() == ".bin" else path).read_bytes()
    return _EXPORT_KEY in content or _EXPORT_KEY.replace(b'"', b"&quot;") in content


_WRITTEN_BY_TCAM: Final[Mapping[str, Callable[[Path], bool]]] = {
    ".mp4": is_drawn,
    **dict.fromkeys((".onnx", ".xml", ".bin", ".pt2"), _is_export),
}
