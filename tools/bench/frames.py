"""Frames of real videos for the benchmarks."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import torch
from torch import Tensor

from tcam.video.reader import stream_frames


def read_frames(videos: Path, count: int, *, number: int = 0) -> Tensor:
    """Read one frame from each of ``count`` videos, taken at equal steps from the sorted files ``<class>/<video>.mp4``.

    Args:
        videos: folder of the classes; if it has fewer than ``count`` videos, some are taken more than once.
        count: number of frames.
        number: of the frame, counted from 0; of a shorter video, its last frame.

    Returns:
        uint8 ``[count, 3, 224, 224]``.
    """
    files = sorted(videos.glob("*/*.mp4"))
    if not files:
        sys.exit(f"error: expected videos <class>/<video>.mp4 in {videos}, found none: name another folder")
    frames = []
    for file in (files[i * len(files) // count] for i in range(count)):
        *_, last = itertools.islice(stream_frames(file, size=(224, 224)), number + 1)
        frames.append(torch.from_numpy(last.pixels))
    return torch.stack(frames)
