import shutil
import threading
import time

import numpy as np
import pytest
import torch

from pipelines.inference.frames import predict_video
from pipelines.models.localizer import NetworkLocalizer
from pipelines.streaming.network_threads import network_threads
from tcam.boxes.extract import extract_box
from tcam.errors import VideoError
from tcam.types import FrameGeometry
from tcam.video.reader import DecodedFrame, stream_frames
from tests.helpers.encoded import encode
from tests.helpers.synthetic import TINY_FRAMES
from tests.helpers.tiny import SIDE, tiny_localizer

NAMES = ("beetle", "fish")


@pytest.fixture(scope="module")
def wide_video(tmp_path_factory):
    """96 x 64 pixels, 7 frames."""
    return encode(tmp_path_factory.mktemp("wide") / "wide.mp4", frames=7, size=(64, 96))


def predict(path, *, threshold: float = 0.5, side: int = SIDE, seed: int = 0, keep_original: bool = False, **options):
    frames = stream_frames(path, size=(side, side), keep_original=keep_original)
    localizer = tiny_localizer(seed=seed)
    return list(predict_video(localizer, "x", frames, threshold=threshold, class_names=NAMES, **options))


def test_every_frame_is_found_once_and_in_order(wide_video):
    frames = predict(wide_video, batch=3)
    assert [item.box.frame_index for item in frames] == list(range(7))
    assert [item.box.time_s for item in frames] == pytest.approx([i / 24 for i in range(7)], abs=1e-3)
    for item in frames:
        assert item.size == (64, 96)
        assert item.original is None
        assert item.box.box is not None
        assert 0 <= item.box.box.x0 < item.box.box.x1 <= 96
        assert 0 <= item.box.box.y0 < item.box.box.y1 <= 64
        assert 0 < item.box.class_score <= 1


def test_the_box_is_that_of_the_map_in_original_pixels(wide_video):
    for item in predict(wide_video, threshold=0.7):
        geometry = FrameGeometry.plain_resize((64, 96), (SIDE, SIDE))
        assert item.box.box == extract_box(item.map, 0.7, geometry)


@pytest.mark.parametrize("seed", range(4))
def test_the_score_is_the_mean_of_the_map_in_the_box_at_any_size(tmp_path, seed):
    # Of 80 columns, 48 come back from 164 pixels a little smaller than they were: 8 as 7.999...
    frames = predict(encode(tmp_path / "odd.mp4", frames=2, size=(82, 164)), threshold=0.95, side=80, seed=seed)
    for item in frames:
        inside = extract_box(item.map, 0.95, FrameGeometry.plain_resize((80, 80), (80, 80)))
        x0, y0, x1, y1 = (int(edge) for edge in inside)
        assert item.box.score == pytest.approx(float(item.map[y0:y1, x0:x1].mean()), abs=1e-6)


def test_a_class_asked_for_is_kept_and_scored(wide_video):
    for label in (0, 1):
        frames = predict(wide_video, label=label)
        assert {item.box.label for item in frames} == {label}
    free = predict(wide_video)
    assert all(item.box.class_score >= 0.5 for item in free)


def test_the_batch_changes_nothing(wide_video):
    one, many = predict(wide_video, batch=2), predict(wide_video, batch=7)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a.map, b.map, rtol=1e-4, atol=1e-4)


def test_large_batches_on_a_cpu_are_of_eight_frames(tmp_path, monkeypatch):
    video, taken, find = encode(tmp_path / "long.mp4", frames=20, size=(64, 96)), [], NetworkLocalizer.find
    monkeypatch.setattr(NetworkLocalizer, "find", lambda *given: taken.append(len(given[1])) or find(*given))
    eight, many = predict(video, batch=8), predict(video, batch=16)
    assert taken == [8, 8, 4] * 2  # the boxes of `stream`, bit by bit
    for a, b in zip(eight, many, strict=True):
        np.testing.assert_array_equal(a.map, b.map)


def test_original_pixels_are_handed_on_where_asked_for(tiny_videos):
    frames = predict(tiny_videos / "fish" / "fish-00.mp4", keep_original=True)
    assert len(frames) == TINY_FRAMES
    assert all(item.original is not None and item.original.shape == (3, 64, 64) for item in frames)


def test_a_threshold_that_nothing_passes_gives_no_box(wide_video):
    for item in predict(wide_video, threshold=1.0):
        assert item.box.box is None
        assert item.box.score == 0.0


def test_frames_before_the_damage_are_given_a_broken_file_gives_none(tmp_path, wide_video):
    shutil.copy(wide_video, tmp_path / "cut.mp4")
    (tmp_path / "cut.mp4").write_bytes(wide_video.read_bytes()[:600])
    with pytest.raises(VideoError):
        predict(tmp_path / "cut.mp4")


class Recorded:
    """Notes how many threads call it at once, and how many of torch's each of them has."""

    def __init__(self, threads) -> None:
        self.inner, self.threads, self.busy, self.most = tiny_localizer("decoder"), threads, 0, 0
        self.torch_threads, self.lock = set(), threading.Lock()

    def find(self, frames, label):
        self.torch_threads.add(torch.get_num_threads())
        with self.lock:
            self.busy += 1
            self.most = max(self.most, self.busy)
        time.sleep(0.05)
        with self.lock:
            self.busy -= 1
        return self.inner.find(frames, label)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "together", "each"), [("each", 3, 1), ("one", 1, 1), ("all", 1, 3)])
def test_batches_in_threads_give_the_same_frames_in_order(kind, together, each):
    size, generator = (SIDE, SIDE), np.random.default_rng(0)
    pixels = [generator.integers(0, 255, (3, *size), np.uint8) for _ in range(45)]
    frames = [DecodedFrame(i, i / 25, picture, None, size) for i, picture in enumerate(pixels)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(each)  # another number gives other last bits
        alone = [
            found.box
            for found in predict_video(Recorded(kind), "x", iter(frames), threshold=0.5, class_names=NAMES, batch=4)
        ]
        torch.set_num_threads(3)
        engine = Recorded(kind)
        with network_threads(engine.threads, 8) as (threads, count):
            assert (count, torch.get_num_threads()) == (together, 3)
            found = predict_video(
                engine, "x", iter(frames), threshold=0.5, class_names=NAMES, batch=4, threads=threads, ahead=count + 1
            )
            boxes = [frame.box for frame in found]
        assert (engine.most, engine.torch_threads) == (together, {each})
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert boxes == alone
    assert [box.frame_index for box in boxes] == list(range(45))


def test_no_more_frames_are_taken_than_batches_are_wanted_ahead():
    taken = []

    def frames():
        for index in range(40):
            taken.append(index)
            yield DecodedFrame(index, index / 25, np.zeros((3, SIDE, SIDE), np.uint8), None, (SIDE, SIDE))

    with network_threads("each", 2) as (threads, _):
        found = predict_video(
            tiny_localizer("decoder"),
            "x",
            frames(),
            threshold=0.5,
            class_names=NAMES,
            batch=4,
            threads=threads,
            ahead=3,
        )
        for index, _ in enumerate(found):
            assert len(taken) <= 4 * (index // 4 + 3)
            if index == 17:
                break
        found.close()
    assert len(taken) == 4 * (17 // 4 + 3)
