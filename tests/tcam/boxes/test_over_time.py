import math

import pytest

from tcam.boxes.over_time import BoxFollower, OverTime, TagFollower
from tcam.types import Box, FrameBox

SIZE = (100, 200)


def seen(index: int, box: Box | None, *, label: int = 0, peak: float = 0.9, time_s: float | None = None) -> FrameBox:
    return FrameBox("x", index, index / 10 if time_s is None else time_s, label, 0.8, 0.7, box, map_peak=peak)


def test_exponential_smoothing_by_hand():
    follow = BoxFollower(OverTime(min_cutoff_hz=1.0, speed_gain=0.0))
    assert follow(seen(0, Box(0, 0, 20, 10)), SIZE).box == Box(0, 0, 20, 10)
    moved = follow(seen(1, Box(10, 0, 30, 10)), SIZE)
    weight = 1 / (1 + 1 / (2 * math.pi * 0.1))
    assert list(moved.box) == pytest.approx([10 * weight, 0, 20 + 10 * weight, 10])
    assert moved.raw_box == Box(10, 0, 30, 10)


def test_a_fast_box_is_followed_more_closely_where_speed_counts():
    lags = []
    for gain in (0.0, 4.0):
        follow = BoxFollower(OverTime(min_cutoff_hz=0.5, speed_gain=gain))
        found = [follow(seen(i, Box(20 * i, 0, 20 * i + 20, 10)), SIZE) for i in range(8)]
        lags.append(found[-1].raw_box.x0 - found[-1].box.x0)
    assert 0 < lags[1] < lags[0] / 2


def test_a_trembling_box_trembles_less():
    follow = BoxFollower(OverTime(min_cutoff_hz=0.5, speed_gain=0.0))
    edges = [follow(seen(i, Box(50 + 4 * (i % 2), 20, 90, 60)), SIZE).box.x0 for i in range(40)]
    assert max(edges[20:]) - min(edges[20:]) < 1.2


@pytest.mark.parametrize("change", [{"label": 1}, {"time_s": 2.0}, {"time_s": 0.0}])
def test_another_class_a_gap_or_a_clock_set_back_starts_anew(change):
    follow = BoxFollower(OverTime(min_cutoff_hz=0.1))
    follow(seen(0, Box(0, 0, 20, 10)), SIZE)
    assert list(follow(seen(1, Box(100, 50, 120, 60), **change), SIZE).box) == pytest.approx([100, 50, 120, 60])


def tracks(*found: FrameBox) -> list[int | None]:
    follow = BoxFollower(OverTime(min_score=0.5))
    return [follow(frame, SIZE).track_id for frame in found]


def test_a_track_goes_on_while_boxes_of_a_class_touch_one_another():
    first, near, far = Box(0, 0, 20, 20), Box(15, 5, 35, 25), Box(21, 0, 41, 20)
    assert tracks(seen(0, first), seen(1, near), seen(2, far)) == [1, 1, 1]
    assert tracks(seen(0, first), seen(1, far)) == [1, 2]
    assert tracks(seen(0, first), seen(1, first, label=1), seen(2, first)) == [1, 2, 3]


def test_a_track_outlives_a_short_absence():
    box = Box(0, 0, 20, 20)
    assert tracks(seen(0, box), seen(1, None), seen(2, box, peak=0.4), seen(3, box)) == [1, None, None, 1]
    assert tracks(seen(0, box), seen(6, box)) == [1, 2]


def test_below_the_score_nothing_is_there_but_the_raw_box_stays():
    follow = BoxFollower(OverTime(min_score=0.5))
    box = Box(0, 0, 20, 10)
    absent = follow(seen(0, box, peak=0.4), SIZE)
    assert (absent.box, absent.raw_box) == (None, box)
    assert follow(seen(1, box, peak=0.5), SIZE).box == box
    assert follow(seen(2, None), SIZE).box is None


def test_boxes_stay_inside_the_frame():
    follow = BoxFollower(OverTime(min_cutoff_hz=0.2, speed_gain=0.0))
    for i, box in enumerate([Box(0, 0, 4, 4), Box(0, 0, 200, 100), Box(196, 96, 200, 100), Box(0, 0, 4, 4)]):
        x0, y0, x1, y1 = follow(seen(i, box), SIZE).box
        assert 0 <= x0 < x1 <= 200
        assert 0 <= y0 < y1 <= 100


@pytest.mark.parametrize(
    "settings", [{"min_cutoff_hz": 0.0}, {"min_score": 1.5}, {"speed_gain": -1.0}, {"max_gap_s": -1.0}]
)
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(ValueError, match=r"must be|expected"):
        OverTime(**settings)


def test_the_boxes_of_each_tag_are_followed_apart_with_numbers_of_their_own():
    frames = [
        [seen(0, Box(0, 0, 20, 10)), seen(0, Box(50, 0, 70, 10), label=1)],
        [seen(1, Box(51, 0, 71, 10), label=1), seen(1, Box(1, 0, 21, 10))],
        [seen(2, Box(90, 50, 99, 60)), seen(2, None, label=1)],
    ]
    follow = TagFollower(OverTime(min_cutoff_hz=1.0))
    found = [[follow(box, SIZE) for box in frame] for frame in frames]
    assert [[box.track_id for box in frame] for frame in found] == [[1, 2], [2, 1], [3, None]]
    alone = BoxFollower(OverTime(min_cutoff_hz=1.0))
    assert [found[0][0].box, found[1][1].box] == [alone(frames[0][0], SIZE).box, alone(frames[1][1], SIZE).box]
