import av
import numpy as np
import pytest

from tcam.errors import DataError
from tcam.video.reader import stream_frames
from tcam.video.writer import VideoWriter


def write(path, *, size=(48, 64), frames=10, **options):
    with VideoWriter(path, size=size, fps=25, **options) as writer:
        for index in range(frames):
            writer.write(np.full((3, *size), 20 * index, np.uint8))


def test_what_is_written_is_read_again(tmp_path):
    write(tmp_path / "a.mp4", crf=10)
    levels = [frame.pixels.mean() for frame in stream_frames(tmp_path / "a.mp4")]
    assert levels == pytest.approx([20 * index for index in range(10)], abs=3)


def test_browsers_can_play_it_and_start_before_it_is_loaded(tmp_path):
    write(tmp_path / "a.mp4", size=(47, 63))
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.width, stream.average_rate) == (46, 62, 25)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("fps", [2, 25])
def test_frames_with_times_of_their_own_last_as_long_as_they_do(tmp_path, fps):
    with VideoWriter(tmp_path / "a.mp4", size=(48, 64), fps=fps, uneven=True) as writer:
        for index in (0, 1, 2, 5, 6, 7, 8, 9):
            writer.write(np.full((3, 48, 64), 20 * index, np.uint8), time_s=index / 10)
    with av.open(str(tmp_path / "a.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
        assert times == pytest.approx([0, 0.1, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9])
        assert container.duration / av.time_base == pytest.approx(1.0, abs=0.03)  # the last one as long as most


def test_an_intra_file_has_key_frames_only(tmp_path):
    write(tmp_path / "a.mp4", intra=True)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)


def test_the_same_frames_give_the_same_bytes(tmp_path):
    write(tmp_path / "a.mp4")
    write(tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_an_error_on_the_way_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.mp4").write_text("old")

    def fail_after_a_frame():
        with VideoWriter(tmp_path / "a.mp4", size=(48, 64), fps=25) as writer:
            writer.write(np.zeros((3, 48, 64), np.uint8))
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail_after_a_frame()
    assert [child.name for child in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_text() == "old"


def test_what_cannot_be_written_says_so(tmp_path):
    with pytest.raises(DataError, match="No such file or directory"):
        write(tmp_path / "nowhere" / "a.mp4")
    with pytest.raises(DataError, match="at least one frame, got none"):
        write(tmp_path / "a.mp4", frames=0)
    assert list(tmp_path.iterdir()) == []


def test_wrong_frames_are_the_callers_mistake(tmp_path):
    with (
        pytest.raises(ValueError, match=r"frame must be uint8 \[3, 48, 64\], got float32 \[3, 48, 64\]"),
        VideoWriter(tmp_path / "a.mp4", size=(48, 64), fps=25) as writer,
    ):
        writer.write(np.zeros((3, 48, 64), np.float32))
    with pytest.raises(ValueError, match="fps must be positive"):
        VideoWriter(tmp_path / "a.mp4", size=(48, 64), fps=0)
