"""Small generated videos whose every frame tells its number; a helper of these tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def encode(
    path: Path,
    *,
    codec: str = "libx264",
    frames: int = 30,
    size: tuple[int, int] = (64, 96),
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    rotation: int | None = None,
) -> Path:
    """Write a panning texture that brightens; times are in 1/240 s (default: 24 frames per second)."""
    texture = np.random.default_rng(0).integers(0, 128, (size[0], size[1] + 2 * frames, 3)).astype(np.uint8)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=24, options=options or {})
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], pix_fmt
        stream.codec_context.time_base = Fraction(1, 240)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for index in range(frames):
            pixels = np.ascontiguousarray(texture[:, 2 * index : 2 * index + size[1]] + np.uint8(100 * index // frames))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = (times[index] if times else 10 * index), Fraction(1, 240)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def trim_by_edit_list(path: Path, *, start: int, duration: int) -> None:
    """Make an mp4's edit list start later and end earlier, as phones do when a clip is trimmed (in file units)."""
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 12
    content[at : at + 4] = duration.to_bytes(4, "big")
    content[at + 4 : at + 8] = start.to_bytes(4, "big")
    path.write_bytes(bytes(content))
