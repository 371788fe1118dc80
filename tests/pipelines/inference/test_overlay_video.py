"""Overlay videos are written beside the work, and whole or not at all."""

import threading
import time

import numpy as np
import pytest

from pipelines.inference import overlay_video
from pipelines.inference.frames import FramePrediction
from pipelines.inference.overlay_video import save_overlay
from tcam.errors import DataError
from tcam.types import Box, FrameBox
from tcam.video.reader import stream_frames

SIZE = (48, 64)


def frames(count: int, *, pixels: bool = True):
    for index in range(count):
        box = FrameBox("x", index, index / 10, 0, 0.9, 0.8, Box(8, 8, 40, 40))
        original = np.full((3, *SIZE), 20 * index, np.uint8) if pixels else None
        yield FramePrediction(box, SIZE, original, np.zeros(SIZE, np.float32))


def test_frames_are_drawn_in_order_by_another_thread_while_few_wait(tmp_path, monkeypatch):
    threads, drawn, draw = set(), [], overlay_video.draw_overlay

    def slow_draw(frame, *more, **options):
        threads.add(threading.current_thread())
        time.sleep(0.02)
        drawn.append(int(frame[0, 0, 0]) // 20)
        return draw(frame, *more, **options)

    monkeypatch.setattr(overlay_video, "draw_overlay", slow_draw)
    taken = []
    for frame in save_overlay(frames(12), tmp_path / "seen.mp4", ("fish",)):
        taken.append(frame.box.frame_index)
        assert len(taken) - len(drawn) <= overlay_video._WAITING + 1
    assert taken == drawn == list(range(12))
    assert threading.current_thread() not in threads
    assert len(list(stream_frames(tmp_path / "seen.mp4", size=SIZE))) == 12


def test_who_stops_taking_frames_leaves_no_video(tmp_path):
    found = save_overlay(frames(12), tmp_path / "seen.mp4", ("fish",))
    for _ in range(6):
        next(found)
    found.close()
    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_in_the_thread_is_raised(tmp_path):
    with pytest.raises(ValueError, match="keep_original"):
        list(save_overlay(frames(3, pixels=False), tmp_path / "seen.mp4", ("fish",)))
    with pytest.raises(DataError, match="too long for the file system"):
        list(save_overlay(frames(3), tmp_path / "a" / ("x" * 300 + ".mp4"), ("fish",)))
