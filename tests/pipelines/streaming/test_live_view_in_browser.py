"""The live page in a real browser, beside a real stream: frames move, the box lies where it was found."""

from __future__ import annotations

import base64
import io
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tcam.video.reader import stream_frames
from tests.helpers.encoded import encode
from tests.helpers.python_processes import tcam_process
from tests.helpers.sources import serve_frames
from tests.pipelines.cli.test_stream import lines_of
from tests.pipelines.streaming.test_live_view import address_in

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WIDTH, HEIGHT, FPS = 128, 96, 10
"""Of the frames of ``serve_frames``."""

SEEN = """() => {
  const part = (id) => document.querySelector(id);
  const place = (id) => { const at = part(id).getBoundingClientRect(); return [at.x, at.y, at.width, at.height]; };
  return {
    number: Number(part("#number").textContent),
    edges: part("#edges").textContent,
    box: getComputedStyle(part("#box")).display === "none" ? null : place("#box .line"),
    stage: place("#stage"),
    size: [part("#frame").width, part("#frame").height],
    picture: part("#frame").toDataURL(),
  };
}"""
HEAT = """() => {
  const [frame, heat] = ["frame", "heat"].map((id) => document.getElementById(id));
  const [under, over] = [frame, heat].map((canvas) => canvas.getBoundingClientRect());
  const data = heat.getContext("2d").getImageData(0, 0, heat.width, heat.height).data;
  return {
    lies_over_the_frame: ["x", "y", "width", "height"].every((name) => over[name] === under[name]),
    most: Math.max(...data.filter((_, i) => i % 4 === 3)),
  };
}"""
OPACITY = "() => Number(getComputedStyle(document.getElementById('heat')).opacity)"


class Opened:
    """The page of a stream, and everything it said and asked for."""

    def __init__(self, page, address: str) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(address)

    def wait_until(self, kind: str) -> str:
        """Wait for a state; gives its words."""
        self.page.wait_for_selector(f"#state[data-kind={kind}]", timeout=60_000)
        return self.page.inner_text("#state")

    def seen(self) -> dict:
        return self.page.evaluate(SEEN)


@contextmanager
def opening(browser, address: str, *, width: int = 1280, scheme: str = "light") -> Iterator[Opened]:
    """Open the page of a stream; nothing may be said on the console, and nothing asked of anybody else."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    try:
        opened = Opened(page, address)
        yield opened
        assert opened.said == []
        assert [url for url in opened.asked if not url.startswith((address, "data:"))] == []
    finally:
        page.close()


@contextmanager
def streaming(run, lines) -> Iterator[tuple[object, str]]:
    """Give the process that localizes in a live source in real time, and the address of its page."""
    with serve_frames(frames=100_000, fps=FPS) as port:
        flags = ("--source", f"tcp://127.0.0.1:{port}", "--view", "0", "-o", lines, "--device", "cpu", "-q")
        process = tcam_process("stream", run.folder, *flags)
        try:
            yield process, address_in(process)
        finally:
            process.kill()
            process.communicate()


def whole_lines(path) -> list[dict]:
    return lines_of(path.read_text().rpartition("\n")[0])


def test_frames_move_and_the_page_stays_with_the_stream(browser, tiny_run, tmp_path):
    lines = tmp_path / "boxes.jsonl"
    with streaming(tiny_run, lines) as (process, address), opening(browser, address) as opened:
        assert opened.wait_until("live") == "live"
        looks, behind = {}, []
        until = time.monotonic() + 60
        while len(looks) <= 6 and time.monotonic() < until:
            time.sleep(0.25)
            look = opened.seen()
            behind.append(whole_lines(lines)[-1]["frame"] - look["number"])
            assert look["number"] >= max(looks, default=0)
            looks[look["number"]] = look["picture"]
        assert len(looks) > 6
        assert len(set(looks.values())) == len(looks)
        assert min(behind[2:]) <= FPS / 2  # a busy machine may delay some looks; frames in a queue would delay them all
        process.send_signal(signal.SIGINT)
        assert opened.wait_until("ended") == "ended: interrupted"
        assert process.wait(timeout=30) == 130
        time.sleep(1.5)
        assert opened.page.inner_text("#state") == "ended: interrupted"


def test_the_last_frame_of_a_file_stays_with_the_reason_of_the_end(browser, tiny_run, tmp_path):
    path = encode(tmp_path / "clip.mp4", frames=40)
    flags = ("--source", path, "--view", "0", "--device", "cpu", "-q")
    process = tcam_process("stream", tiny_run.folder, *flags)
    with opening(browser, address_in(process)) as opened:
        out, _ = process.communicate(timeout=120)
        assert (process.returncode, len(lines_of(out))) == (0, 41)
        assert opened.wait_until("ended") == "ended: source ended"
        look = opened.seen()
    shown = Image.open(io.BytesIO(base64.b64decode(look["picture"].partition(",")[2]))).convert("RGB")
    frames = [frame.original for frame in stream_frames(path, keep_original=True)]
    errors = [np.abs(np.asarray(shown).transpose(2, 0, 1).astype(int) - frame).mean() for frame in frames]
    assert look["number"] == int(np.argmin(errors)) == 39


def test_a_stream_that_is_killed_is_said_to_be_gone(browser, tiny_run, tmp_path):
    with streaming(tiny_run, tmp_path / "boxes.jsonl") as (process, address), opening(browser, address) as opened:
        opened.wait_until("live")
        process.kill()
        assert opened.wait_until("ended") == "ended: tcam no longer answers"
        assert len(opened.said) == 1  # the browser itself says that nobody answered
        opened.said.clear()


@pytest.fixture(scope="module")
def stream(tiny_run, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """Give the address of the page of a stream that goes on, and its lines."""
    lines = tmp_path_factory.mktemp("stream") / "boxes.jsonl"
    with streaming(tiny_run, lines) as (_, address):
        yield address, lines


def test_the_box_lies_over_the_frame_where_it_was_found(browser, stream):
    address, lines = stream
    looks = []
    with opening(browser, address) as opened:
        opened.wait_until("live")
        for _ in range(20):
            time.sleep(0.1)
            looks.append(opened.seen())
    rows = {row["frame"]: row for row in whole_lines(lines)}
    for look in looks:
        left, top, width, height = look["stage"]
        assert look["size"] == [WIDTH, HEIGHT]
        assert width / height == pytest.approx(WIDTH / HEIGHT, rel=0.01)
        row = rows[look["number"]]
        box = None if row["x0"] is None else [row[side] for side in ("x0", "y0", "x1", "y1")]
        assert (look["box"] is None) == (box is None) == (look["edges"] == "no box")
        if box is not None:
            x, y, wide, high = look["box"]
            on_page = [x - left, y - top, x + wide - left, y + high - top]
            expected = [edge * scale for edge, scale in zip(box, 2 * (width / WIDTH, height / HEIGHT), strict=True)]
            assert on_page == pytest.approx(expected, abs=4)  # the line has a width
    assert any(look["box"] for look in looks)


def test_the_slider_blends_the_map(browser, stream):
    with opening(browser, stream[0]) as opened:
        opened.wait_until("live")
        heat = opened.page.evaluate(HEAT)
        assert heat["lies_over_the_frame"]
        assert heat["most"] > 100
        assert opened.page.evaluate(OPACITY) == 0.62
        for key, part in (("Home", 0), ("ArrowRight", 0.01), ("End", 1)):
            opened.page.press("#strength", key)
            assert opened.page.evaluate(OPACITY) == part
            assert opened.page.inner_text("#percent") == f"{100 * part:.0f} %"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(browser, stream, scheme):
    with opening(browser, stream[0], width=360, scheme=scheme) as opened:
        opened.wait_until("live")
        assert opened.page.evaluate("document.documentElement.scrollWidth") == 360
        assert opened.seen()["stage"][2] > 280
