"""What a command may not change: the files that it reads; a helper of these tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

_WRITTEN = ("-o", "--output", "--save-video", "--runs")


def hash_inputs(arguments: Sequence[str]) -> dict[Path, str]:
    """Hash every file that a command line names or that lies in a folder it names, but for run folders.

    A file that only an output flag names is an input where another argument names it, or a folder above it, too.
    """
    named = [Path(text) for flag, text in zip(["", *arguments], arguments, strict=False) if flag not in _WRITTEN]
    files = {file for path in named for file in _files(path)}
    return {file: sha256(file) for file in sorted(files)}


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _files(path: Path) -> Iterator[Path]:
    try:
        if path.is_file():
            yield path
        elif path.is_dir() and not _holds_runs(path):
            yield from (file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    except OSError:
        return  # no name that can be


def _holds_runs(path: Path) -> bool:
    return any(path.rglob("config.yaml"))
