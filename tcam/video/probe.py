"""Probe a video file: its decodable frames, display size, rotation, timing and damage.

Headers may be wrong, so frames are counted by decoding them, for at most ``_COUNT_BUDGET_S`` seconds; the rest of a
long file is counted by its packets.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tcam.types import Decoder, Size
from tcam.video.container import decode_packet, frame_time, open_container, read_packets, refuse
from tcam.video.frame_files import ImageSequence, is_image_sequence
from tcam.video.pixels import FOLDER_FPS, Orientation

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_COUNT_BUDGET_S: Final = 12.0
_WHOLE: Final = 0.95
"""A file that gives less than this share of what its header promises is called damaged."""


@dataclass(frozen=True, slots=True)
class VideoProbe:
    """The properties of one video.

    ``num_frames`` counts decodable frames. ``size`` is (height, width) in display orientation, ``rotation`` the
    clockwise rotation in degrees from stored to displayed pixels. ``lost_frames`` is the number of frames that the
    header promises but the file lacks. ``warning`` says in one line what is wrong with a usable video, or is None.
    """

    path: str
    num_frames: int
    size: Size
    fps: float
    rotation: int
    variable_rate: bool
    duration_s: float
    codec: str
    container: str
    lost_frames: int
    decoder: Decoder
    warning: str | None


def probe_video(path: Path) -> VideoProbe:
    """Probe a video file, a folder of numbered images, or a file of one or several pictures.

    Args:
        path: what to probe; every image must be readable, and all of one size.

    Raises:
        VideoError: it holds nothing that can be decoded; one line of at most 300 characters.
        MissingPartError: PyAV is not installed (a frame folder does without).
    """
    path = Path(path)
    return _probe_images(path) if is_image_sequence(path) else _probe_file(path)


def _probe_images(path: Path) -> VideoProbe:
    with ImageSequence(path) as images:
        if not len(images):
            refuse(path, "expected a video file or a folder of numbered images, found a folder without images")
        return VideoProbe(
            path=str(path),
            num_frames=len(images),
            size=_common_size(images),
            fps=images.fps,
            rotation=0,
            variable_rate=False,
            duration_s=len(images) / images.fps,
            codec=Path(images.name(0)).suffix[1:].lower(),
            container="frames" if path.is_dir() else "pages",
            lost_frames=0,
            decoder="frames",
            warning="; ".join(images.notes()) or None,
        )


def _common_size(images: ImageSequence) -> Size:
    """Return the size that all pictures have; those after the budget are not decoded, only their heads are read.

    Raises:
        VideoError: one cannot be read, or they differ.
    """
    deadline = time.monotonic() + _COUNT_BUDGET_S
    shown: Counter[Size] = Counter()
    stored: set[Size | None] = set()
    for index in range(len(images)):
        if time.monotonic() < deadline:
            picture = images.picture(index)
            shown[picture.height, picture.width] += 1
            stored.add(images.stored_size(index))
        elif images.stored_size(index) not in stored:
            shown[images.stored_size(index) or (0, 0)] += 1
        if len(shown) > 1:
            (first, _), (other, _) = shown.most_common()
            refuse(
                images.path,
                f"frames of several sizes: {first[1]} x {first[0]}, {images.name(index)} has {other[1]} x {other[0]}",
                remedy="give each size a folder of its own",
            )
    return next(iter(shown))


@dataclass
class _Tally:
    """The counts of one pass over a file."""

    frames: int = 0
    packets: int = 0
    corrupt: int = 0
    errors: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    stored: Size = (0, 0)
    orientation: Orientation = field(default_factory=Orientation)
    promised: int = 0
    header_s: float = 0.0
    rate: float = 0.0
    codec: str = ""
    container: str = ""
    complete: bool = True


def _probe_file(path: Path) -> VideoProbe:
    tally = _survey(path)
    if tally.frames == 0:
        refuse(path, "no frame of it can be decoded" + (f" ({tally.errors[0]})" if tally.errors else ""))
    steps = [later - before for before, later in zip(tally.times, tally.times[1:], strict=False) if later > before]
    fps = _frames_per_second(tally, steps)
    duration = max(tally.times[-1] - tally.times[0], 0.0) + 1 / fps if len(tally.times) > 1 else tally.frames / fps
    lost = _count_lost(tally, duration, steps)
    return VideoProbe(
        path=str(path),
        num_frames=tally.frames,
        size=tally.orientation.size(tally.stored),
        fps=fps,
        rotation=tally.orientation.rotation,
        variable_rate=_is_variable(steps),
        duration_s=duration,
        codec=tally.codec,
        container=tally.container,
        lost_frames=lost,
        decoder="pyav",
        warning=_warn(tally, lost),
    )


def _survey(path: Path) -> _Tally:
    """Count the frames of a file by decoding them; after the budget, by their packets."""
    tally = _Tally()
    deadline = time.monotonic() + _COUNT_BUDGET_S
    with open_container(path) as (container, stream):
        _note_header(tally, container, stream)
        for packet in read_packets(container, stream, on_error=tally.errors):
            if packet is not None and packet.size:
                tally.packets += not packet.is_discard
                tally.corrupt += packet.is_corrupt
            tally.complete = tally.complete and time.monotonic() < deadline
            if tally.complete:
                for frame in decode_packet(stream, packet, on_error=tally.errors):
                    _note_frame(tally, frame, frame_time(frame, stream))
    if not tally.complete and tally.frames:
        tally.frames = max(tally.frames, tally.packets - len(tally.errors))
    return tally


def _note_header(tally: _Tally, container: InputContainer, stream: VideoStream) -> None:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    lengths = [float(stream.duration * stream.time_base)] if stream.duration and stream.time_base else []
    if container.duration:
        lengths.append(container.duration / 1_000_000)
    tally.rate = float(rate) if rate else 0.0
    tally.promised, tally.header_s = max(stream.frames, 0), max(min(lengths, default=0.0), 0.0)
    tally.codec, tally.container = stream.codec_context.name, container.format.name


def _note_frame(tally: _Tally, frame: VideoFrame, time_s: float | None) -> None:
    if tally.frames == 0:
        tally.stored, tally.orientation = (frame.height, frame.width), Orientation.of_frame(frame)
    tally.frames += 1
    if time_s is not None:
        tally.times.append(time_s)


def _frames_per_second(tally: _Tally, steps: list[float]) -> float:
    """Return the average rate of the frames seen; the header's where the times do not say."""
    span = sum(steps)
    measured = len(steps) / span if steps and span > 0 else 0.0
    if tally.rate and 0.98 < measured / tally.rate < 1.02:
        return tally.rate
    return next((rate for rate in (measured, tally.rate) if 0.01 <= rate <= 1000), FOLDER_FPS)


def _is_variable(steps: list[float]) -> bool:
    """Whether frames last differently: more than rounding of times (1 ms clocks) explains."""
    if len(steps) < 2:
        return False
    middle = sorted(steps)[len(steps) // 2]
    return sum(abs(step - middle) > 0.0021 + 0.02 * middle for step in steps) > 0.02 * len(steps)


def _count_lost(tally: _Tally, duration: float, steps: list[float]) -> int:
    """Estimate how many frames are missing, by errors and by what the header promises.

    A trimmed file holds fewer frames than its header counts but fills its duration; a header may also overstate the
    duration (longer sound). So the file is short only where every figure of the header says so. Where decoder or
    container complained, gaps in the times count too.
    """
    shares = []
    if tally.promised:
        shares.append(tally.frames / tally.promised)
    if tally.header_s > 0:
        shares.append(duration / tally.header_s)
    short = bool(shares) and max(shares) < _WHOLE and tally.complete
    missing = round(tally.frames / max(max(shares), 1e-6)) - tally.frames if short else 0
    marks = len(tally.errors) + tally.corrupt
    if marks and steps:
        middle = sorted(steps)[len(steps) // 2]
        missing = max(missing, sum(round(step / middle) - 1 for step in steps if step > 1.5 * middle))
    return max(missing, marks)


def _warn(tally: _Tally, lost: int) -> str | None:
    if lost:
        cause = f" ({' '.join(tally.errors[0].split())[:100]})" if tally.errors else ""
        return f"damaged: {tally.frames} frames decode, about {lost} are lost or spoilt{cause}"
    if not tally.complete:
        return f"long: the frames after the first {_COUNT_BUDGET_S:g} s of decoding were counted, not decoded"
    return None
