"""Find the video of a data folder that a table refers to."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from unicodedata import normalize

from tcam.errors import DataError
from tcam.video.data_folder.find import VIDEO_SUFFIXES

_FOLDS: Final[tuple[Callable[[str], str], ...]] = (str, str.casefold)
_SHOWN: Final = 5


class VideoNames:
    """Finds the videos below a folder by the names that people write for them in tables."""

    def __init__(self, root: Path, video_ids: Sequence[str]) -> None:
        """Index the videos of a folder; their ids are paths below it, with ``/``."""
        self._root = root
        self._roots = [_clean(str(path)) for path in (root.absolute(), root.resolve())]
        self._ids = frozenset(video_ids)
        names = [(video_id, _names(_clean(video_id))) for video_id in sorted(self._ids)]
        self._levels: list[tuple[Callable[[str], str], dict[str, list[str]]]] = []
        for fold in _FOLDS:
            for kind in range(4):
                level: dict[str, list[str]] = {}
                for video_id, forms in names:
                    level.setdefault(fold(forms[kind]), []).append(video_id)
                self._levels.append((fold, level))

    def find(self, text: str) -> str | None:
        """Return the id of the video that a text refers to, or None.

        Tried in this order: an exact id; paths in another spelling, absolute or with the folder's own name in front;
        paths without the suffix; a bare file name; one without its suffix; then all of these ignoring case.

        Raises:
            DataError: the text fits several videos.
        """
        if text in self._ids:
            return text
        paths = self._below_root(_clean(text))
        for fold, level in self._levels:
            found = next((level[fold(path)] for path in paths if fold(path) in level), [])
            if len(found) > 1:
                more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
                raise DataError(
                    f"{text!r} names several videos: {', '.join(found[:_SHOWN])}{more}; "
                    f"write the path below {self._root}"
                )
            if found:
                return found[0]
        return None

    def _below_root(self, path: str) -> list[str]:
        """Return a path and what of it may lie below the folder; one from another machine only shares its name."""
        below = [path.removeprefix(f"{root}/") for root in self._roots]
        named = [f"/{path}".partition(f"/{posixpath.basename(root)}/")[2] for root in self._roots]
        return list(dict.fromkeys(form.lstrip("/") for form in (path, *below, *named)))


def _clean(text: str) -> str:
    """Normalize a path: Unicode NFC with ``/``, without ``.`` and doubled or trailing slashes."""
    return posixpath.normpath(normalize("NFC", text).replace("\\", "/"))


def _names(path: str) -> tuple[str, str, str, str]:
    """Return the path, the path without the suffix of a video, the bare name and the bare stem."""
    stem, suffix = posixpath.splitext(path)
    short = stem if suffix.lower() in VIDEO_SUFFIXES else path
    return path, short, posixpath.basename(path), posixpath.basename(short)
