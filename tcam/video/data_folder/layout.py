"""Read the tag of a video, and its split if there is one, from the folders of a data set."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import PurePath

from tcam.types import Split
from tcam.video.data_folder.tables import SPLIT_WORDS

Place = tuple[str | None, Split | None]
"""Tag and split of a video; None if its folders do not name it."""


def read_layout(videos: Sequence[PurePath]) -> list[Place]:
    """Read tags and splits from the paths of all videos of a data set, relative to it.

    The default is ``<class>/...``. If all videos lie in ``<split>/<class>/...`` or all in ``<class>/<split>/...``, the
    folders name splits too. A folder ``train`` beside folders that are not splits is a class.

    Returns:
        For each video its tag, in Unicode NFC, and its split.
    """
    parts = [video.parts for video in videos]
    if _splits_first(parts):
        return [(_tag(p[1]) if len(p) > 2 else None, SPLIT_WORDS[p[0].casefold()]) for p in parts]
    if parts and all(len(p) > 2 and p[1].casefold() in SPLIT_WORDS for p in parts):
        return [(_tag(p[0]), SPLIT_WORDS[p[1].casefold()]) for p in parts]
    return [(_tag(p[0]), None) for p in parts]


def _splits_first(parts: Sequence[tuple[str, ...]]) -> bool:
    names = {p[0].casefold() for p in parts}
    if not names or not names <= SPLIT_WORDS.keys():
        return False
    classes = {p[1] for p in parts if len(p) > 2}
    return len(names) > 1 or len(classes) > 1


def _tag(name: str) -> str:
    return unicodedata.normalize("NFC", name)
