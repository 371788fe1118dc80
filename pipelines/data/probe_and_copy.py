"""What ``prepare`` does with one video, in any process: probe it and write its clean copy, named by content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from tcam.errors import VideoError
from tcam.types import Size
from tcam.video.frame_files import is_image_sequence
from tcam.video.index import write_whole
from tcam.video.probe import VideoProbe, probe_video
from tcam.video.reader import stream_frames
from tcam.video.writer import VideoWriter

_CACHE_CRF: Final = 12
_CACHE_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class VideoJob:
    """One whole video; its clean copy is encoded in one go, from the first frame to the last."""

    video_id: str
    path: Path
    cache_dir: Path | None
    short_side: int

    def __str__(self) -> str:
        return self.video_id


@dataclass(frozen=True, slots=True)
class GoodVideo:
    """A usable video, and its clean copy if there is one."""

    probe: VideoProbe
    cache_path: str | None


def check_video(job: VideoJob) -> GoodVideo:
    """Probe one video and, if there is a cache, write its clean copy, unless that exists.

    Raises:
        VideoError: it cannot be used.
        DataError: the copy cannot be written.
    """
    if job.cache_dir is None or is_image_sequence(job.path) or not job.path.is_file():
        return GoodVideo(probe_video(job.path), None)  # raises for what is missing, a pipe or a device
    copy = job.cache_dir / f"{_content_key(job)}.mp4"
    known = _read_note(copy)
    if known is not None:
        return GoodVideo(replace(known, path=str(job.path)), str(copy))
    probe = probe_video(job.path)
    size = _shrink(probe.size, job.short_side)
    num_frames = 0
    with VideoWriter(copy, size=size, fps=min(probe.fps, 240.0), intra=True, crf=_CACHE_CRF) as writer:
        for frame in stream_frames(job.path, size=size):
            writer.write(frame.pixels)
            num_frames += 1
    probe = replace(probe, num_frames=num_frames)
    with write_whole(copy.with_suffix(".json")) as file:
        json.dump(asdict(probe), file)
    return GoodVideo(probe, str(copy))


def _content_key(job: VideoJob) -> str:
    digest = hashlib.sha256(f"{_CACHE_VERSION} {job.short_side} {_CACHE_CRF} ".encode())
    try:
        with job.path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except OSError as error:
        raise VideoError(f"{job.path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()[:32]


def _read_note(copy: Path) -> VideoProbe | None:
    """Read the note that an earlier run wrote beside its copy; None if either is missing or incomplete."""
    try:
        values = json.loads(copy.with_suffix(".json").read_text(encoding="utf-8"))
        values["size"] = (int(values["size"][0]), int(values["size"][1]))
        return VideoProbe(**values) if copy.stat().st_size > 0 else None
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return None


def _shrink(size: Size, short_side: int) -> Size:
    """Return the size of the copy: even sides, at least 16, the short one not above ``short_side``."""
    scale = min(short_side / min(size), 1.0)
    return (max(round(size[0] * scale / 2) * 2, 16), max(round(size[1] * scale / 2) * 2, 16))
