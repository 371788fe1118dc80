"""Masks of frames: ``<root>/masks/<video>/<frame>.png`` (frame from 0), bright where the object is.

``<video>`` is a video id, with or without its suffix: ``masks/dog/rex/000012.png`` is of frame 12 of ``dog/rex.mp4``.
A video with several tags has a folder for each: ``masks/dog/rex/`` and ``masks/cat/rex/`` for ``rex.mp4``.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from tcam.errors import DataError
from tcam.types import Box, Size
from tcam.video.data_folder.clip_tables import VideosByTag
from tcam.video.data_folder.find import MASKS
from tcam.video.pictures.image import IMAGE_SUFFIXES, read_image


def find_masks(root: Path, videos: VideosByTag) -> dict[tuple[str, int], Path]:
    """List the masks of a data folder by video id and frame, without opening them.

    Raises:
        DataError: a mask belongs to no video, or its name is not a frame number.
    """
    folder = root / MASKS
    names = {
        f"{tag}/{video}" if len(tags) > 1 else video: video_id
        for video, tags in videos.items()
        for tag, video_id in tags.items()
    }
    by_name = {_composed(str(Path(name).with_suffix(""))): video for name, video in names.items()}
    by_name |= {_composed(name): video for name, video in names.items()}
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        video = by_name.get(_composed(path.parent.relative_to(folder).as_posix()))
        if video is None:
            raise DataError(f"{path}: a mask lies in {MASKS}/<class>/<video>/, and {root} holds no such video")
        if not (path.stem.isascii() and path.stem.isdigit()):
            raise DataError(f"{path}: a mask is named after its frame, counted from 0, such as 000012.png")
        found[video, int(path.stem)] = path
    return found


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def read_mask(path: Path, size: Size) -> Tensor:
    """Read a mask as uint8 ``[h, w]``, 1 where it is above half of its brightest pixel, at ``size`` (nearest).

    Raises:
        VideoError: it is not an image that can be read.
    """
    grey = torch.from_numpy(read_image(path, None)).amax(dim=0)
    inside = (2 * grey.int() > grey.max().int()).byte()
    return functional.interpolate(inside[None, None], size=size, mode="nearest")[0, 0]


def mask_box(mask: Tensor) -> Box | None:
    """Return the box around all pixels of a mask ``[h, w]``, or None for an empty one."""
    rows, columns = (torch.nonzero(mask.any(dim=axis)).flatten().tolist() for axis in (1, 0))
    return Box(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if rows else None
