"""Which files and folders below a folder are videos, by their names alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tcam.video.pixels import IMAGE_SUFFIXES

_SUFFIXES: Final = """
mp4 m4v mov qt mkv avi divx webm mpg mpeg mpe m1v m2v vob ts mts m2ts m2t tod mod wmv asf flv f4v ogv ogg ogm 3gp 3g2
gif apng mxf gxf rm rmvb dv nut nuv nsv ivf obu y4m h264 264 avc h265 265 hevc h263 mjpg mjpeg wtv amv swf roq smk bik
fli flc dav lrv insv vc1 drc mj2 av1
"""
VIDEO_SUFFIXES: Final = frozenset(f".{name}" for name in _SUFFIXES.split())
_MAX_DEPTH: Final = 6


def find_videos(folder: Path, *, depth: int = 1) -> Iterator[Path]:
    """Give video files and frame folders below a folder, sorted; what carries a video's name is one, whatever it holds.

    Args:
        folder: where to look; hidden files are left out, a folder that cannot be read gives nothing.
        depth: how deep ``folder`` itself lies; the search ends a few levels below 1.
    """
    try:
        children = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    except OSError:
        return
    for child in children:
        named_video = child.suffix.lower() in VIDEO_SUFFIXES
        if not child.is_dir():
            if named_video:
                yield child
        elif named_video or holds_frames(child):
            yield child
        elif depth < _MAX_DEPTH:
            yield from find_videos(child, depth=depth + 1)


def holds_frames(folder: Path) -> bool:
    """Say whether a folder is itself a video: images lie directly in it."""
    try:
        with os.scandir(folder) as children:
            return any(os.path.splitext(c.name)[1].lower() in IMAGE_SUFFIXES for c in children if c.name[0] != ".")  # noqa: PTH122
    except OSError:
        return False
