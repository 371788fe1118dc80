import itertools
import re
import socket
import time

import pytest

from tcam.errors import StreamError, VideoError
from tcam.video.live import LiveSource, open_live
from tests.helpers.encoded import encode
from tests.helpers.file_server import serve
from tests.helpers.sources import send_datagrams, serve_frames, serve_rtmp, serve_rtsp

SIZE = (48, 64)


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("0", "camera", "camera 0"),
        ("-", "stdin", "standard input"),
        ("RTSP://u:p@host:554/door?key=1", "network", "rtsp://host:554/door"),
        ("https://host/a@b.m3u8", "network", "https://host/a@b.m3u8"),
        ("rtmps://u:p@host/live/door?key=1", "network", "rtmps://host/live/door"),
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


@pytest.mark.slow
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


def test_an_rtmp_source_is_watched():
    with serve_rtmp(frames=40, fps=60) as port:
        source = LiveSource.parse(f"rtmp://127.0.0.1:{port}/live/door")
        with open_live(source, open_timeout_s=9, read_timeout_s=9) as stream:
            assert stream.endless
            frames = stream.frames(size=SIZE)
            found = [next(frames) for _ in range(39)]
            with pytest.raises(StreamError, match=r"/live/door: lost \("):
                list(frames)
    assert [frame.time_s for frame in found] == pytest.approx([i / 60 for i in range(39)], abs=1e-3)


@pytest.mark.parametrize("scheme", ["rtmp", "rtmps"])
def test_an_rtmp_address_that_nobody_answers_at_is_said_at_once(scheme):
    source = LiveSource.parse(f"{scheme}://127.0.0.1:9/live/door")
    message = r"/live/door: cannot be opened \(Connection refused\); check the address and that the source is running$"
    with pytest.raises(StreamError, match=message), open_live(source, open_timeout_s=9, read_timeout_s=9):
        pass


def frames_on_server(path, *, protocol="HTTP/1.0", timeout_s=9, **settings) -> int:
    """Count the frames of a file that a server gives."""
    with serve(protocol) as server:
        server.files["/a.mp4"] = path.read_bytes()
        for name, value in settings.items():
            setattr(server, name, value)
        source = LiveSource.parse(f"{server.url}/a.mp4")
        with open_live(source, open_timeout_s=timeout_s, read_timeout_s=timeout_s) as stream:
            return len(list(stream.frames(size=SIZE)))


@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1"])
def test_an_mp4_whose_table_of_contents_comes_last_takes_a_server_with_ranges(tmp_path, protocol):
    last = encode(tmp_path / "last.mp4", size=(240, 320), options={"crf": "10"})
    assert last.read_bytes().index(b"moov") > 2**16
    assert frames_on_server(last, protocol=protocol) == 30
    message = re.escape(
        "an mp4 whose table of contents comes last needs a server that answers range requests; download it and name "
        "the file, or write it with 'ffmpeg -i IN -c copy -movflags +faststart OUT.mp4'"
    )
    with pytest.raises(VideoError, match=rf"/a.mp4: no frame came \(.*\): {message}$"):
        frames_on_server(last, protocol=protocol, knows_ranges=False, timeout_s=1)


def test_an_mp4_whose_table_of_contents_comes_first_takes_no_ranges(tmp_path):
    first = encode(tmp_path / "first.mp4", container_options={"movflags": "+faststart"})
    assert frames_on_server(first, knows_ranges=False) == 30


def test_an_mp4_that_takes_too_long_to_its_table_of_contents_says_what_it_needs(tmp_path):
    last = encode(tmp_path / "last.mp4", size=(240, 320), options={"crf": "10"})
    with pytest.raises(StreamError, match=r"/a.mp4: cannot be opened .*comes last needs a server that answers range"):
        frames_on_server(last, knows_ranges=False, stall_after=2**15, timeout_s=0.5)


def test_a_file_on_a_server_that_ends_before_its_first_frame_is_lost(tmp_path):
    first = encode(tmp_path / "first.mp4", container_options={"movflags": "+faststart"})
    first.write_bytes(first.read_bytes()[: first.read_bytes().index(b"mdat") + 4])
    with pytest.raises(StreamError, match=r"/a.mp4: lost \(it ended before its first frame\)$"):
        frames_on_server(first)


@pytest.mark.slow
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
