"""Quantise an OpenVINO model from float32 to 8 bits, calibrated on sample frames."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import numpy as np

from pipelines.data.find import find_files
from pipelines.run.console import console
from tcam.types import Size
from tcam.video.pixels import Pixels
from tcam.video.reader import count_frames, stream_frames

if TYPE_CHECKING:
    from openvino import Model

CALIBRATION_FRAMES: Final = 300

os.environ.setdefault("NNCF_CI", "1")  # else nncf reports its use to a web service, unasked


def calibration_frames(source: str, size: Size) -> Pixels:
    """Return evenly spaced frames of every video of a source (as for ``--source``): uint8 ``[N, 3, *size]``.

    Raises:
        DataError: there are no videos, or one cannot be read.
    """
    videos = find_files(source)
    each = max(1, CALIBRATION_FRAMES // len(videos))
    frames: list[Pixels] = []
    for path in videos[:CALIBRATION_FRAMES]:
        total = count_frames(path) or each
        wanted = {(2 * i + 1) * total // (2 * each) for i in range(each)}
        frames += [frame.pixels for frame in stream_frames(path, size=size, only=wanted)]
    console.print(f"{len(frames)} calibration frames of {len(videos)} videos")
    return np.stack(frames)


def quantise(model: Model, frames: Pixels) -> Model:
    """Return the model with 8-bit weights and activations, whose ranges are taken from the frames."""
    import nncf

    inputs = len(model.inputs)  # frames and, where a map is of one class, labels
    samples = nncf.Dataset([frame[None] for frame in frames], lambda frame: [frame, np.array([-1])][:inputs])
    return nncf.quantize(model, samples, subset_size=len(frames))
