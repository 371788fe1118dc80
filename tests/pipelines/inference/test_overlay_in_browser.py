"""Overlay videos in a real browser: the one of a report, and one of a stream whose frames have times of their own."""

import av
import pytest

from tests.helpers.sources import serve_frames

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PLAYED = """async (video) => {
    video.muted = true;
    video.loop = false;
    const ended = new Promise((resolve) => video.addEventListener("ended", resolve));
    await video.play();
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 60000))]);
    return {
        size: [video.videoWidth, video.videoHeight],
        seconds: video.duration,
        reached: video.currentTime,
        error: video.error && video.error.message,
        frames: video.getVideoPlaybackQuality().totalVideoFrames,
    };
}"""


def facts_of(path) -> tuple[tuple[int, int], float, int]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        seconds = float(container.duration / av.time_base)
        return (stream.width, stream.height), seconds, sum(1 for _ in container.decode(video=0))


def play(browser, page_address, path) -> None:
    """Play the video of a page to its end; it is as long as the file says, and no frame is missing."""
    page = browser.new_page()
    try:
        page.goto(page_address)
        played = page.eval_on_selector("video", PLAYED)
    finally:
        page.close()
    size, seconds, frames = facts_of(path)
    assert played["error"] is None
    assert played["size"] == list(size)
    assert played["seconds"] == pytest.approx(seconds, abs=0.1)
    assert played["reached"] == pytest.approx(played["seconds"], abs=0.01)
    assert 0 < played["frames"] <= frames


def test_the_video_of_a_report_plays_to_its_end(browser, tiny_run):
    report = tiny_run.folder / "report"
    play(browser, (report / "report.html").as_uri(), report / "overlay.mp4")


def test_the_video_of_a_live_stream_lasts_as_long_as_the_stream(browser, tcam, tiny_run, tmp_path):
    video = tmp_path / "seen.mp4"
    with serve_frames(frames=45, fps=15) as port:
        flags = ("--source", f"tcp://127.0.0.1:{port}", "--save-video", video, "--reconnect", "0")
        assert tcam("stream", tiny_run.folder, *flags, "--device", "cpu", "-q").code == 6  # a live source is lost
    assert facts_of(video)[1] == pytest.approx(3, abs=0.4)
    content = video.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    (tmp_path / "page.html").write_text('<video src="seen.mp4"></video>')
    play(browser, (tmp_path / "page.html").as_uri(), video)
