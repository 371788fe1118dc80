import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from tcam.video.pixels import Orientation
from tcam.video.probe import probe_video
from tcam.video.reader import ClipReader, stream_frames

TURNED, TRANSPOSED, MIRRORED = 6, 5, 2
"""Values of Exif's ``Orientation``."""


def picture_with(exif: int) -> bytes:
    """A JPEG of four flat corners that says how it is to be turned."""
    corners = np.array([[(200, 30, 30), (30, 200, 30)], [(30, 30, 200), (220, 220, 220)]], np.uint8)
    tags, stream = Image.Exif(), io.BytesIO()
    tags[0x0112] = exif
    Image.fromarray(corners.repeat(48, axis=0).repeat(64, axis=1)).save(stream, "JPEG", exif=tags, quality=95)
    return stream.getvalue()


def write_motion_jpeg(path: Path, picture: bytes, *, frames: int = 5) -> Path:
    """Write a picture some times over as an AVI, as still cameras do; FFmpeg gives its frames their Exif."""
    with av.open(io.BytesIO(picture * frames), format="mjpeg") as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    with av.open(str(path)) as container:
        try:
            list(next(container.decode(video=0)).side_data)
        except ValueError:
            return path
    pytest.skip("this PyAV knows all that its FFmpeg says beside a frame's pixels")


@pytest.mark.parametrize(
    ("exif", "orientation"),
    [
        (TURNED, Orientation(True, True, False)),
        (TRANSPOSED, Orientation(True, False, False)),
        (MIRRORED, Orientation(False, True, False)),
    ],
)
def test_frames_with_side_data_that_pyav_does_not_know_are_shown_as_they_should_be(tmp_path, exif, orientation):
    picture = picture_with(exif)
    path = write_motion_jpeg(tmp_path / "camera.avi", picture)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(picture)))).transpose(2, 0, 1).astype(int)
    found = probe_video(path)
    assert (found.num_frames, found.size, found.rotation) == (5, shown.shape[1:], orientation.rotation)
    for frame in stream_frames(path):
        assert np.abs(frame.pixels - shown).mean() < 4
    with ClipReader(path, decoder=found.decoder, num_frames=5, size=found.size) as reader:
        assert np.abs(reader.read([3])[0] - shown).mean() < 4
