import itertools
import socket
import time

import pytest

from tcam.errors import StreamError
from tcam.video.live import LiveSource, open_live
from tests.pipelines.sources import send_datagrams, serve_frames, serve_rtsp

SIZE = (48, 64)


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("0", "camera", "camera 0"),
        ("-", "stdin", "standard input"),
        ("RTSP://u:p@host:554/door?key=1", "network", "rtsp://host:554/door"),
        ("https://host/a@b.m3u8", "network", "https://host/a@b.m3u8"),
    ],
)
def test_a_live_source_is_told_by_its_spelling_and_named_without_secrets(text, kind, name):
    source = LiveSource.parse(text)
    assert (source.kind, str(source)) == (kind, name)


@pytest.mark.parametrize("text", ["clip.mp4", "./0", "file:///etc/passwd", "concat:a|b", "tcp:x", "ftp://host/a.mp4"])
def test_all_else_is_the_name_of_a_file(text):
    assert LiveSource.parse(text) is None


def test_a_source_that_says_nothing_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as server:  # the kernel takes the call, nobody answers
        source = LiveSource.parse(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        began = time.monotonic()
        with (
            pytest.raises(StreamError, match=r"cannot be opened \(nothing arrived in time\)"),
            open_live(source, open_timeout_s=0.3, read_timeout_s=9),
        ):
            pass
        assert time.monotonic() - began < 5


def test_a_source_that_falls_silent_is_lost_in_time():
    with serve_frames(frames=40, fps=1) as port:
        source = LiveSource.parse(f"tcp://127.0.0.1:{port}")
        with (
            open_live(source, open_timeout_s=9, read_timeout_s=0.3) as stream,
            pytest.raises(StreamError, match=r"lost \(nothing arrived in time\)"),
        ):
            list(stream.frames(size=SIZE))


def test_frames_come_at_the_size_asked_for_and_with_their_own():
    with serve_frames(frames=9) as port:
        source = LiveSource.parse(f"tcp://127.0.0.1:{port}")
        with open_live(source, open_timeout_s=9, read_timeout_s=9) as stream:
            assert stream.endless
            frames = list(stream.frames(size=SIZE, keep_original=True))
    assert [frame.index for frame in frames] == list(range(9))
    assert [frame.time_s for frame in frames] == pytest.approx([i / 30 for i in range(9)], abs=1e-3)
    assert {(tuple(frame.pixels.shape), tuple(frame.original.shape)) for frame in frames} == {
        ((3, 48, 64), (3, 96, 128))
    }


def test_an_rtsp_camera_is_watched_with_its_password():
    with serve_rtsp(frames=40, fps=30, user="me:geheim") as port:
        source = LiveSource.parse(f"rtsp://me:geheim@127.0.0.1:{port}/door")
        with open_live(source, open_timeout_s=9, read_timeout_s=9) as stream:
            assert stream.endless
            frames = list(stream.frames(size=SIZE))
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert 35 <= len(frames) <= 40  # the connection ends before the decoder has shown its last ones


def test_a_wrong_password_is_not_in_the_message():
    with serve_rtsp(frames=40, user="me:geheim") as port:
        source = LiveSource.parse(f"rtsp://me:falsch@127.0.0.1:{port}/door?key=falsch")
        with (
            pytest.raises(StreamError, match=r"401 Unauthorized") as caught,
            open_live(source, open_timeout_s=9, read_timeout_s=9),
        ):
            pass
    assert "falsch" not in str(caught.value)


def test_datagrams_are_watched_until_they_cease():
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = LiveSource.parse(f"udp://127.0.0.1:{port}")
    with send_datagrams(port, fps=30) as cease, open_live(source, open_timeout_s=9, read_timeout_s=0.5) as stream:
        frames = stream.frames(size=SIZE)
        seen = [frame.index for frame in itertools.islice(frames, 30)]
        cease.set()
        with pytest.raises(StreamError, match=r"lost \(nothing arrived in time\)"):
            list(frames)
    assert seen == list(range(30))
