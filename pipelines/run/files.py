"""Write files atomically (whole or not at all), and hash their content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from tcam.files import replacing
from tcam.video.frame_files import list_frame_files


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def hash_json(value: object) -> str:
    """Return the hash of a JSON value: 20 hex digits."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=10).hexdigest()


def hash_file(path: Path) -> str:
    """Return the hash of a file's content: 20 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=10)).hexdigest()


def hash_content(path: Path) -> str:
    """Return the hash of a video: of a file, or of a folder's images and their names; empty if neither exists."""
    if path.is_dir():
        return hash_json([(file.name, hash_file(file)) for file in list_frame_files(path)])
    return hash_file(path) if path.is_file() else ""


def copy_folder(source: Path, target: Path) -> None:
    """Copy a finished stage. Files are hard-linked where possible, because they are replaced but never edited."""
    shutil.copytree(source, target, copy_function=_link_or_copy, dirs_exist_ok=True)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
