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
from tests.pipelines.sources import serve_frames
from tests.pipelines.test_cli_stream import lines_of, tcam_process
from tests.pipelines.test_live_view import address_in
from tests.tcam.video.encoded import encode

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WIDTH, HEIGHT, FPS = 128, 96, 15
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
    opacity: Number(getComputedStyle(heat).opacity),
    most: Math.max(...data.filter((_, i) => i % 4 === 3)),
  };
}"""


class Opened:
    """The page of a stream, and everything it said and asked for."""

    def __init__(self, browser, address: str, *, width: int = 1280, scheme: str = "light") -> None:
        self.address = address
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)

    def wait_until(self, kind: str) -> str:
        """Wait for a state; gives its words."""
        self.page.wait_for_selector(f"#state[data-kind={kind}]", timeout=60_000)
        return self.page.inner_text("#state")

    def seen(self) -> dict:
        return self.page.evaluate(SEEN)

    def check(self) -> None:
        """Nothing was said on the console, and nothing asked of anybody else."""
        assert self.said == []
        assert [url for url in self.asked if not url.startswith((self.address, "data:"))] == []
        self.page.close()


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


def newest_in(lines) -> int:
    return lines_of("\n".join(lines.read_text().splitlines()[-2:-1]))[0]["frame"]


def test_frames_move_and_the_page_stays_with_the_stream(browser, tiny_run, tmp_path):
    lines = tmp_path / "boxes.jsonl"
    with streaming(tiny_run, lines) as (process, address):
        opened = Opened(browser, address)
        assert opened.wait_until("live") == "live"
        looks = []
        for _ in range(12):
            time.sleep(0.25)
            looks.append(opened.seen())
            assert newest_in(lines) - looks[-1]["number"] <= FPS  # a second
        numbers = [look["number"] for look in looks]
        assert numbers == sorted(numbers)
        assert len(set(numbers)) > 6
        assert len({look["picture"] for look in looks}) == len(set(numbers))
        process.send_signal(signal.SIGINT)
        assert opened.wait_until("ended") == "ended: interrupted"
        assert process.wait(timeout=30) == 130
        time.sleep(1.5)
        assert opened.page.inner_text("#state") == "ended: interrupted"
        opened.check()


@pytest.fixture(scope="module")
def stream(tiny_run, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """Give the address of the page of a stream that goes on, and its lines."""
    lines = tmp_path_factory.mktemp("stream") / "boxes.jsonl"
    with streaming(tiny_run, lines) as (_, address):
        yield address, lines


def test_the_box_lies_over_the_frame_where_it_was_found(browser, stream):
    address, lines = stream
    opened = Opened(browser, address)
    opened.wait_until("live")
    looks = []
    for _ in range(20):
        time.sleep(0.1)
        looks.append(opened.seen())
    opened.check()
    rows = {row["frame"]: row for row in lines_of("\n".join(lines.read_text().splitlines()[:-1]))}
    for look in looks:
        left, top, width, height = look["stage"]
        assert look["size"] == [WIDTH, HEIGHT]
        assert width / height == pytest.approx(WIDTH / HEIGHT, rel=0.01)
        box = rows[look["number"]]["box"]
        assert (look["box"] is None) == (box is None) == (look["edges"] == "no box")
        if box is not None:
            x, y, wide, high = look["box"]
            on_page = [x - left, y - top, x + wide - left, y + high - top]
            expected = [edge * scale for edge, scale in zip(box, 2 * (width / WIDTH, height / HEIGHT), strict=True)]
            assert on_page == pytest.approx(expected, abs=4)  # the line has a width
    assert any(look["box"] for look in looks)


def test_the_slider_blends_the_map(browser, stream):
    opened = Opened(browser, stream[0])
    opened.wait_until("live")
    heat = opened.page.evaluate(HEAT)
    assert heat["lies_over_the_frame"]
    assert heat["opacity"] == 0.62
    assert heat["most"] > 100
    for key, part in (("Home", 0), ("ArrowRight", 0.01), ("End", 1)):
        opened.page.press("#strength", key)
        assert opened.page.evaluate(HEAT)["opacity"] == part
        assert opened.page.inner_text("#percent") == f"{100 * part:.0f} %"
    opened.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(browser, stream, scheme):
    opened = Opened(browser, stream[0], width=360, scheme=scheme)
    opened.wait_until("live")
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 360
    assert opened.seen()["stage"][2] > 280
    opened.check()


def test_the_last_frame_of_a_file_stays_with_the_reason_of_the_end(browser, tiny_run, tmp_path):
    path = encode(tmp_path / "clip.mp4", frames=40)
    flags = ("--source", path, "--view", "0", "--device", "cpu", "-q")
    process = tcam_process("stream", tiny_run.folder, *flags)
    opened = Opened(browser, address_in(process))
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, len(lines_of(out))) == (0, 41)
    assert opened.wait_until("ended") == "ended: source ended"
    look = opened.seen()
    shown = Image.open(io.BytesIO(base64.b64decode(look["picture"].partition(",")[2]))).convert("RGB")
    frames = [frame.original for frame in stream_frames(path, keep_original=True)]
    errors = [np.abs(np.asarray(shown).transpose(2, 0, 1).astype(int) - frame).mean() for frame in frames]
    assert look["number"] == int(np.argmin(errors)) == 39
    opened.check()


def test_a_stream_that_is_killed_is_said_to_be_gone(browser, tiny_run, tmp_path):
    with streaming(tiny_run, tmp_path / "boxes.jsonl") as (process, address):
        opened = Opened(browser, address)
        opened.wait_until("live")
        process.kill()
        assert opened.wait_until("ended") == "ended: tcam no longer answers"
        opened.page.close()
