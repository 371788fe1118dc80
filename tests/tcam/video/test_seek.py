"""Parts of a video reached by a seek are what reading it in order gives, or are refused."""

import numpy as np
import pytest

from tcam.errors import VideoError
from tcam.video.pictures.image import image_size
from tcam.video.reader import RangeStream, count_frames, stream_frames
from tests.helpers.encoded import encode

SIZE = (32, 48)
VIDEOS = {
    "plain": {"options": {"g": "8"}},
    "b-frames and open groups": {"options": {"g": "10", "bf": "3", "x264-params": "open-gop=1"}},
    "turned": {"rotation": 90},
    "late and uneven": {"times": [100 + 10 * i + 3 * (i % 3) for i in range(30)]},
    "one key frame": {"options": {"g": "100"}},
}


def facts(frames):
    return [(frame.index, frame.time_s, frame.original_size) for frame in frames]


@pytest.mark.parametrize("name", VIDEOS)
def test_a_range_is_that_of_reading_in_order(name, tmp_path):
    path = encode(tmp_path / "x.mp4", **VIDEOS[name])
    whole = list(stream_frames(path, size=SIZE))
    assert count_frames(path) == len(whole) == 30
    for frames in (range(30), range(13, 21), range(29, 30), range(8, 16)):
        stream = RangeStream(path, num_frames=30, size=SIZE)
        found = list(stream.read(frames))
        stream.close()
        wanted = whole[frames.start : frames.stop]
        assert facts(found) == facts(wanted)
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(found, wanted, strict=True))


def test_ranges_of_a_folder_are_its_images(tmp_path):
    from PIL import Image

    for number in range(5):
        Image.new("RGB", (40 + number, 30), (number * 20, 0, 0)).save(tmp_path / f"{number:03d}.png")
    assert count_frames(tmp_path) == 5
    assert image_size(tmp_path / "000.png") == (30, 40)
    whole = list(stream_frames(tmp_path, size=SIZE))
    found = list(RangeStream(tmp_path, num_frames=5, size=SIZE).read(range(2, 4)))
    assert facts(found) == facts(whole[2:4])
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(found, whole[2:4], strict=True))


def test_a_damaged_video_is_refused_rather_than_counted_wrongly(tmp_path):
    path = encode(tmp_path / "x.mov", codec="png", pix_fmt="rgb24")
    begin = b"\x89PNG\r\n"
    parts = path.read_bytes().split(begin)
    path.write_bytes(begin.join(parts[:16]) + bytes(len(begin)) + begin.join(parts[16:]))  # image 15 is none
    assert len(list(stream_frames(path, size=SIZE))) == 29
    assert count_frames(path) == 30
    assert len(list(RangeStream(path, num_frames=30, size=SIZE).read(range(15)))) == 15
    for frames in (range(10, 20), range(15, 16)):
        with pytest.raises(VideoError, match=r"it is damaged: its frames must be read in order|frame 15 of 30|missing"):
            list(RangeStream(path, num_frames=30, size=SIZE).read(frames))
