"""The folder of a run; a name is never used twice."""

from __future__ import annotations

import re
from pathlib import Path

from tcam.errors import ConfigError, DataError


def check_run_name(name: str) -> str:
    """Return the name unchanged if it can be part of a folder name.

    Raises:
        ConfigError: it holds other characters.
    """
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ConfigError(f"--name wants letters, digits, '.', '_', '+' or '-', got '{name}'")
    return name


def create_run(root: Path, name: str) -> Path:
    """Create ``root/<name>-NNN`` with the next free number; runs are never overwritten.

    Raises:
        ConfigError: the name holds characters that do not belong in a folder name.
        DataError: the folder cannot be created.
    """
    check_run_name(name)
    try:
        root.mkdir(parents=True, exist_ok=True)
        taken = [
            int(match[1])
            for path in root.iterdir()
            if (match := re.fullmatch(re.escape(name) + r"-(\d{3,})", path.name))
        ]
        for number in range(max(taken, default=0) + 1, max(taken, default=0) + 1000):
            folder = root / f"{name}-{number:03d}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue  # another process took the number just now
            return folder
    except OSError as error:
        raise DataError(f"cannot make a run folder in {root}: {error.strerror}") from None
    raise DataError(f"no free run number for '{name}' in {root}")


def open_run(folder: Path) -> Path:
    """Check that a folder is a run.

    Raises:
        DataError: it does not exist, or holds no config.yaml.
    """
    if (folder / "config.yaml").is_file():
        return folder
    found = "found no such folder" if not folder.is_dir() else "found a folder without config.yaml"
    near = sorted(path.parent.name for path in folder.parent.glob("*/config.yaml")) if folder.parent.is_dir() else []
    hint = f"; runs there: {', '.join(near[:8])}" if near else "; make one with 'tcam train'"
    raise DataError(f"expected a run folder at {folder}, {found}{hint}")
