import base64
import http.client
import io
import json
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from pipelines.inference.frames import FramePrediction
from pipelines.inference.overlay import HEAT_STRENGTH, draw_overlay, encode_heat
from pipelines.streaming.live_view import LiveView, encode_frame
from tcam.errors import ConfigError, StreamError
from tcam.types import Box, FrameBox
from tcam.video.reader import stream_frames
from tests.helpers.encoded import encode
from tests.helpers.python_processes import tcam_process
from tests.helpers.sources import serve_frames
from tests.pipelines.cli.test_stream import lines_of


class Looking:
    """One browser: a kept connection that knows which state it has."""

    def __init__(self, address: str) -> None:
        self.port = int(address.rstrip("/").rpartition(":")[2])
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self.number = 0

    def get(self, path: str, *, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        self.connection.request(method, path, headers=headers)
        answer = self.connection.getresponse()
        return answer, answer.read()

    def ask(self) -> dict:
        answer, body = self.get(f"/next?after={self.number}")
        assert (answer.status, answer.getheader("Content-Type")) == (200, "application/json; charset=utf-8")
        state = json.loads(body)
        self.number = state["number"]
        return state

    def __enter__(self) -> "Looking":
        return self

    def __exit__(self, *_) -> None:
        self.connection.close()


def picture_of(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(";base64,")[2])))


def show(view: LiveView, index: int) -> None:
    """Make frame ``index``, plain grey, the newest one."""
    box = FrameBox("clip", index, index / 25, label=0, class_score=0.9, score=0.8, box=Box(10, 20, 30, 40))
    pixels = np.full((3, 40, 60), index, np.uint8)
    frame = FramePrediction(box, (40, 60), pixels, np.full((8, 8), 0.5, np.float32))
    view.show(frame, {"frame": index}, lambda: {"fps": 25.0})


@pytest.fixture
def encoded(monkeypatch) -> Counter:
    """Count the pictures that Pillow encodes, by format."""
    counts, save = Counter(), Image.Image.save

    def counting(self, target, kind, **options):
        counts[kind] += 1
        save(self, target, kind, **options)

    monkeypatch.setattr(Image.Image, "save", counting)
    return counts


def address_in(process) -> str:
    line = process.stderr.readline()
    assert line.startswith("live view: http://127.0.0.1:"), line
    return line.removeprefix("live view: ").strip()


@pytest.mark.slow
def test_a_frame_is_served_as_it_was_decoded_with_its_line_and_the_figures(tiny_run, tmp_path):
    path = encode(tmp_path / "clip.mp4", frames=11)
    flags = ("--source", path, "--view", "0", "--device", "cpu", "-q")
    process = tcam_process("stream", tiny_run.folder, *flags)
    states = []
    with Looking(address_in(process)) as browser:
        while not states or not states[-1]["ended"]:
            states.append(browser.ask())
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    *rows, end = lines_of(out)
    originals = [frame.original for frame in stream_frames(path, keep_original=True)]
    shown = [state for state in states if "frame" in state]
    assert shown
    for state in shown:
        assert state["row"] == rows[state["row"]["frame"]]
        assert state["size"] == [64, 96]
        served = np.asarray(picture_of(state["frame"])).transpose(2, 0, 1).astype(int)
        errors = [np.abs(served - original).mean() for original in originals]
        assert int(np.argmin(errors)) == state["row"]["frame"]
        assert min(errors) < 12 < sorted(errors)[1] / 2  # noise of all colours: JPEG is at its worst
        assert picture_of(state["heat"]).mode == "P"
    assert shown[-1]["row"]["frame"] == 10
    assert states[-1]["ended"] == "source ended"
    figures = states[-1]["figures"]
    assert set(figures) == {"frames", "dropped", "reconnects", "fps", "lag_ms", "lag_p95_ms"}
    assert {name: figures[name] for name in ("frames", "dropped", "reconnects")} == {
        name: end[name] for name in ("frames", "dropped", "reconnects")
    }


def test_a_frame_is_encoded_once_for_all_who_look_and_never_for_nobody(encoded):
    with LiveView(0, "clip") as view:
        for index in range(50):
            show(view, index)
        assert encoded == {}
        with Looking(view.address) as one, Looking(view.address) as other:
            assert [one.ask()["row"], other.ask()["row"]] == [{"frame": 49}, {"frame": 49}]
            assert encoded == {"JPEG": 1, "PNG": 1}
            show(view, 50)
            assert [other.ask()["row"], one.ask()["row"]] == [{"frame": 50}, {"frame": 50}]
            assert encoded == {"JPEG": 2, "PNG": 2}


def test_many_who_look_at_once_see_only_ever_newer_frames(encoded):
    seen = [[] for _ in range(6)]
    view = LiveView(0, "clip")

    def look(frames: list[int]) -> None:
        with Looking(view.address) as browser:
            while not (state := browser.ask())["ended"]:
                frames.extend([state["row"]["frame"]] if "frame" in state else [])

    threads = [threading.Thread(target=look, args=(frames,)) for frames in seen]
    with view:
        for thread in threads:
            thread.start()
        for index in range(100):
            show(view, index)
            time.sleep(0.005)
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert all(frames == sorted(set(frames)) and frames for frames in seen)
    assert encoded["JPEG"] <= 100


def test_one_who_looks_away_gets_the_newest_frame_and_nothing_in_between():
    with LiveView(0, "clip") as view, Looking(view.address) as browser:
        show(view, 0)
        assert browser.ask()["row"] == {"frame": 0}
        for index in range(1, 30):
            show(view, index)
        assert browser.ask()["row"] == {"frame": 29}


@pytest.mark.slow
def test_where_nothing_is_new_the_answer_comes_without_pictures_and_says_for_how_long():
    with LiveView(0, "clip") as view, Looking(view.address) as browser:
        began_s = time.monotonic()
        assert browser.ask() == {"number": 0, "ended": ""}  # no frame yet
        assert 0.9 < time.monotonic() - began_s < 5
        show(view, 0)
        assert "frame" in browser.ask()
        later = browser.ask()
        assert "frame" not in later
        assert later["quiet_s"] > 0.9
        assert later["figures"] == {"fps": 25.0}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StreamError("rtsp://door/cam: lost"), "lost: rtsp://door/cam: lost"),
        (ConfigError("no such class"), "error: no such class"),
        (ValueError(), "error: ValueError"),
    ],
)
def test_what_ended_the_stream_is_the_last_thing_said(error, reason):
    told, threads = [], []

    def look(address: str) -> None:
        with Looking(address) as browser:
            while not (state := browser.ask())["ended"]:
                pass
            told.append(state["ended"])

    def stream() -> None:
        with LiveView(0, "clip") as view:
            threads.append(threading.Thread(target=look, args=(view.address,)))
            threads[0].start()
            time.sleep(0.2)
            raise error

    with pytest.raises(type(error)):
        stream()
    threads[0].join(timeout=10)
    assert told == [reason]


@pytest.mark.slow
def test_the_end_waits_for_one_who_has_yet_to_hear_of_it_but_not_for_long_nor_for_one_who_left():
    with LiveView(0, "clip") as view:
        with Looking(view.address) as gone:
            gone.ask()
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 0.8
    view = LiveView(0, "clip")
    with Looking(view.address) as hanging:
        with view:
            hanging.ask()
            began_s = time.monotonic()
        assert 0.9 < time.monotonic() - began_s < 3


def test_the_end_does_not_wait_for_one_who_has_heard_of_it_and_stays():
    view, states = LiveView(0, "clip"), []
    with Looking(view.address) as browser:
        with view:
            show(view, 0)
            browser.ask()
            asking = threading.Thread(target=lambda: states.append(browser.ask()))
            asking.start()
            time.sleep(0.2)
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 0.8
        asking.join(timeout=10)
    assert states[0]["ended"] == "source ended"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""])
def test_another_name_for_this_machine_is_refused(host):
    with LiveView(0, "clip") as view, Looking(view.address) as browser:
        for path in ("/", "/next?after=0"):
            answer, body = browser.get(path, Host=host.format(port=browser.port))
            assert (answer.status, body) == (403, b"expected the address that tcam stream printed\n")
        assert browser.get("/", Host=f"LOCALHOST:{browser.port}")[0].status == 200


def test_there_is_nothing_but_the_page_and_only_to_be_read(capsys):
    with LiveView(0, "<b>door</b>") as view, Looking(view.address) as browser:
        answer, body = browser.get("/")
        assert answer.status == 200
        assert b"<title>&lt;b&gt;door&lt;/b&gt;</title>" in body
        policy = answer.getheader("Content-Security-Policy")
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "connect-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "http" not in policy
        for path in ("/favicon.ico", "/next", "/next?after=-1", "/next?after=x", "/../etc/passwd", "/?q"):
            assert browser.get(path)[0].status == 404, path
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert browser.get("/", method=method)[0].status == 501
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((other_address(), browser.port), timeout=5)
    assert capsys.readouterr() == ("", "")  # no log of requests


def other_address() -> str:
    """Give another address of this machine than the one that is served."""
    return "127.0.0.2" if sys.platform == "linux" else socket.gethostbyname(socket.gethostname())


def test_a_port_in_use_is_said_before_anything_else_runs(tcam, tmp_path):
    path = encode(tmp_path / "clip.mp4", frames=2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        left = tcam("stream", tmp_path / "no-such-run", "--source", path, "--view", str(port))
    assert (left.code, left.out) == (2, "")
    assert left.error == (
        f"--view {port}: expected a free port of 127.0.0.1, found: Address already in use; take another, or 0 for any"
    )


@pytest.mark.slow
def test_ctrl_c_ends_a_stream_that_somebody_looks_at(tiny_run):
    with serve_frames(frames=100_000, fps=30) as port:
        flags = ("--source", f"tcp://me:secret@127.0.0.1:{port}/?key=secret", "--view", "0", "--device", "cpu", "-q")
        process = tcam_process("stream", tiny_run.folder, *flags)
        with Looking(address_in(process)) as browser:
            page = browser.get("/")[1]
            while "frame" not in (state := browser.ask()):
                assert not state["ended"], state
            process.send_signal(signal.SIGINT)
            began_s = time.monotonic()
            while not (state := browser.ask())["ended"]:
                pass
            out, err = process.communicate(timeout=60)
    assert time.monotonic() - began_s < 60  # it ends, also on a busy machine
    assert (process.returncode, err) == (130, "tcam: interrupted by SIGINT\n")
    assert lines_of(out)[-1]["end"] == "interrupted"
    assert state["ended"] == "interrupted"
    assert f"<title>tcp://127.0.0.1:{port}/</title>".encode() in page
    assert b"secret" not in page


def write_browser(folder, code: int):
    """A program that stands in for a browser: it keeps the address it is given."""
    path = folder / "browser"
    path.write_text(f'#!/bin/sh\necho opened\nprintf %s "$1" > "{folder}/address"\nexit {code}\n')
    path.chmod(0o755)
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the browser here is a shell script")
def test_show_opens_the_page_in_the_browser_which_writes_nothing_into_the_stream(tiny_run, tmp_path):
    path = encode(tmp_path / "clip.mp4", frames=5)
    environment = {**os.environ, "BROWSER": str(write_browser(tmp_path, 0))}
    flags = ("--source", path, "--show", "--device", "cpu", "-q")
    process = tcam_process("stream", tiny_run.folder, *flags, env=environment)
    address = address_in(process)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert len(lines_of(out)) == 6
    assert (tmp_path / "address").read_text() == address


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the browser here is a shell script")
def test_where_no_browser_opens_the_address_is_said_and_the_stream_goes_on(tiny_run, tmp_path):
    path = encode(tmp_path / "clip.mp4", frames=5)
    environment = {**os.environ, "BROWSER": str(write_browser(tmp_path, 1))}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    flags = ("--source", path, "--show", "--view", str(port), "--device", "cpu")
    process = tcam_process("stream", tiny_run.folder, *flags, env=environment)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(lines_of(out)) == 6
    assert f"no browser could be opened here; the live view is at http://127.0.0.1:{port}/" in err.splitlines()


def test_a_wide_frame_is_scaled_down_for_the_page():
    wide = np.zeros((3, 1200, 2560), np.uint8)
    wide[0, :, 1280:] = 200
    shown = Image.open(io.BytesIO(encode_frame(wide)))
    assert shown.size == (1280, 600)
    assert shown.getpixel((1000, 300))[0] == pytest.approx(200, abs=3)
    assert Image.open(io.BytesIO(encode_frame(wide[:, :100, :99]))).size == (99, 100)


def test_the_map_at_its_usual_strength_is_the_heat_of_overlay_videos():
    level = np.random.default_rng(0).random((48, 64), np.float32)
    grey = np.full((3, 48, 64), 120, np.uint8)
    heat = np.asarray(Image.open(io.BytesIO(encode_heat(level))).convert("RGBA")).astype(float)
    opacity = heat[..., 3:] / 255 * HEAT_STRENGTH
    blended = (heat[..., :3] * opacity + 120 * (1 - opacity)).transpose(2, 0, 1)
    assert np.abs(blended - draw_overlay(grey, None, map=level)).max() < 1.6
