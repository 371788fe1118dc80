import gc
import resource
import time
from dataclasses import dataclass, field

import pytest

from pipelines.streaming.feed import ROOM, Drop, FrameFeed, Patience
from pipelines.streaming.localizer import StreamLocalizer
from pipelines.streaming.run import StreamedFrame, localize
from tcam.errors import ConfigError, StreamError, VideoError
from tcam.types import Size
from tcam.video.live import LiveSource
from tcam.video.reader import stream_frames
from tests.helpers.encoded import encode
from tests.helpers.file_server import serve
from tests.helpers.sources import serve_frames
from tests.helpers.tiny import SIDE, tiny_localizer

pytestmark = pytest.mark.together

SIZE = (SIDE, SIDE)


@dataclass(frozen=True)
class SlowLocalizer:
    """A network that takes a while: the tiny one and a pause for each frame."""

    seconds: float
    inner: object = field(default_factory=lambda: tiny_localizer("decoder"))
    threads = "all"

    def find(self, frames, label):
        time.sleep(self.seconds * len(frames))
        return self.inner.find(frames, label)


def stream_localizer(seconds: float = 0.0, size: Size = SIZE) -> StreamLocalizer:
    slow = SlowLocalizer(seconds)
    return StreamLocalizer(slow, class_names=("fish", "beetle"), size=size, threshold=0.5)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Have the sweep over map thresholds compiled: seconds, at the first call in a new checkout."""
    path = encode(tmp_path_factory.mktemp("compiled") / "clip.mp4", frames=1)
    with FrameFeed(path, size=SIZE) as feed:
        assert len(list(localize(stream_localizer(), feed))) == 1


def watch(
    port: int, frames: int, *, drop: Drop | None, seconds: float, budget_s: float | None = None
) -> list[tuple[StreamedFrame, float]]:
    """Localize in a live source; gives what came, and when (time.monotonic)."""
    came: list[tuple[StreamedFrame, float]] = []
    source, patience = LiveSource.parse(f"tcp://127.0.0.1:{port}"), Patience(reconnects=0)
    with FrameFeed(source, size=SIZE, drop=drop, patience=patience, budget_s=budget_s) as feed:
        found = localize(stream_localizer(seconds), feed)
        with pytest.raises(StreamError, match="it ended"):  # a live source has no end of its own
            came.extend((frame, time.monotonic()) for frame in found)
        assert feed.dropped == frames - len(came)
    assert [frame.dropped for frame, _ in came] == [
        frame.prediction.box.frame_index - i for i, (frame, _) in enumerate(came)
    ]
    return came


@pytest.mark.parametrize(("text", "drop"), [("latest", Drop(True)), ("none", Drop()), ("every:5", Drop(every=5))])
def test_what_to_drop_has_three_spellings(text, drop):
    assert Drop.parse(text) == drop


@pytest.mark.parametrize("text", ["newest", "every", "every:", "every:0", "every:-1", "every:²", "none:2"])
def test_other_spellings_are_refused(text):
    with pytest.raises(ConfigError, match="expected latest, none or every:N"):
        Drop.parse(text)


def test_a_feed_gives_the_frames_of_a_file_in_order_and_waits_for_room(tmp_path):
    path = encode(tmp_path / "clip.mp4", frames=3 * ROOM)
    with FrameFeed(path, size=SIZE) as feed:
        fed = []
        for item in feed:
            time.sleep(0.005)
            assert len(feed._waiting) <= ROOM
            fed.append(item)
        feed.check()
    expected = list(stream_frames(path, size=SIZE))
    assert [item.frame.index for item in fed] == [frame.index for frame in expected]
    assert all((item.frame.pixels == frame.pixels).all() for item, frame in zip(fed, expected, strict=True))
    assert feed.dropped == 0


def test_a_file_that_cannot_be_read_is_said_after_the_frames(tmp_path):
    (tmp_path / "text.mp4").write_text("hello\n")
    with FrameFeed(tmp_path / "text.mp4", size=SIZE) as feed:
        assert list(feed) == []
        with pytest.raises(VideoError, match="not a readable video"):
            feed.check()


def read_http(address: str) -> list[int]:
    with FrameFeed(LiveSource.parse(address), size=SIZE) as feed:
        indices = [fed.frame.index for fed in feed]
        feed.check()
    return indices


def test_a_file_over_http_has_an_end_and_drops_nothing(tmp_path):
    with serve() as served:
        served.files["/clip.mp4"] = encode(tmp_path / "clip.mp4", frames=40).read_bytes()
        assert read_http(f"{served.url}/clip.mp4") == list(range(40))


def test_a_playlist_may_lead_to_its_host_but_not_to_a_local_file(tmp_path):
    secret = encode(tmp_path / "part.ts", frames=12)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    with serve() as served:
        served.files["/part.ts"] = secret.read_bytes()
        served.files["/good.m3u8"] = playlist.format("part.ts").encode()
        served.files["/bad.m3u8"] = playlist.format(f"file://{secret}").encode()
        assert read_http(f"{served.url}/good.m3u8") == list(range(12))
        with pytest.raises((StreamError, VideoError)):
            read_http(f"{served.url}/bad.m3u8")


@pytest.mark.slow
def test_with_latest_the_lag_of_a_slow_network_stays_small(compiled):
    sent_at = []
    with serve_frames(frames=180, fps=30, sent_at=sent_at) as port:
        came = watch(port, 180, drop=None, seconds=0.1)
    later = [(frame, at) for frame, at in came if frame.prediction.box.time_s > 1]  # the first second is looked at
    assert len(later) > 25
    # All of the frames would come up to 12 s late; 0.3 s on a quiet machine: `tools/stress/live.py`.
    assert max(at - sent_at[frame.prediction.box.frame_index] for frame, at in later) <= 1
    assert max(frame.lag_s for frame, _ in later) <= 1


@pytest.mark.slow
def test_with_none_no_frame_of_a_live_source_is_dropped_and_the_lag_says_so(compiled):
    sent_at = []
    with serve_frames(frames=60, fps=30, sent_at=sent_at) as port:
        came = watch(port, 60, drop=Drop(), seconds=0.1)
    assert [frame.prediction.box.frame_index for frame, _ in came] == list(range(60))
    last, at = came[-1]
    assert last.lag_s > 2
    assert last.lag_s == pytest.approx(at - sent_at[-1], abs=0.3)  # but for the way of the fastest frame


@pytest.mark.slow
def test_with_a_budget_frames_wait_as_long_as_it_allows(compiled):
    sent_at = []
    with serve_frames(frames=150, fps=30, sent_at=sent_at) as port:
        came = watch(port, 150, drop=None, seconds=0.1, budget_s=0.8)
    lags = [at - sent_at[frame.prediction.box.frame_index] for frame, at in came if frame.prediction.box.time_s > 2]
    assert 0.5 < max(lags) <= 1.3  # more than with `latest`, and the way of the fastest frame comes on top
    assert len(lags) > 20


@pytest.mark.slow
def test_a_budget_that_is_kept_drops_nothing(compiled):
    with serve_frames(frames=60, fps=30) as port:
        assert len(watch(port, 60, drop=None, seconds=0.0, budget_s=1.0)) == 60


def test_a_budget_is_not_for_a_source_with_an_end(tmp_path):
    path = encode(tmp_path / "clip.mp4", frames=2 * ROOM)
    with FrameFeed(path, size=SIZE, budget_s=1e-6) as feed:
        assert len(list(feed)) == 2 * ROOM


@pytest.mark.slow
def test_memory_does_not_grow_with_the_stream(compiled, tmp_path):
    path, size = encode(tmp_path / "long.mp4", frames=600), (192, 192)  # large frames: few are enough
    with FrameFeed(path, size=size) as feed:
        for frame in localize(stream_localizer(size=size), feed):
            if frame.prediction.box.frame_index == 100:
                gc.collect()
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB; 500 frames have 55 MB
