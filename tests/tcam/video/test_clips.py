import pytest
import torch

from tcam.types import Shot
from tcam.video.clips import FrameSampler, frame_window, neighbours, spread_frames


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [
        (1, range(1)),
        (2, range(2)),
        (3, range(1, 2)),
        (4, range(1, 4)),
        (5, range(1, 4)),
        (6, range(2, 5)),
        (10, range(2, 9)),
        (50, range(10, 41)),
        (100, range(20, 81)),
    ],
)
def test_the_window_of_six_tenths_has_the_published_frames(num_frames, expected):
    assert frame_window(num_frames, 0.6) == expected


def test_the_whole_window_is_the_whole_shot():
    assert frame_window(7, 1.0) == range(7)
    assert frame_window(3, 1.0) == range(3)


def test_every_window_lies_inside_its_shot_and_holds_a_frame():
    for num_frames in range(1, 60):
        for limit in (0.01, 0.3, 0.6, 0.99, 1.0):
            window = frame_window(num_frames, limit)
            assert len(window) >= 1
            assert window[0] >= 0
            assert window[-1] < num_frames


def test_windows_refuse_what_makes_no_sense():
    for num_frames, limit in ((0, 0.5), (5, 0.0), (5, 1.1)):
        with pytest.raises(ValueError, match="expected num_frames >= 1 and 0 < limit <= 1"):
            frame_window(num_frames, limit)


@pytest.mark.parametrize(
    ("frame", "count", "mode", "expected"),
    [
        (12, 2, "before", [10, 11, 12]),
        (11, 4, "before", [10, 11]),
        (10, 1, "before", [10]),
        (17, 2, "after", [17, 18, 19]),
        (19, 2, "after", [19]),
        (15, 1, "before-after", [14, 15, 16]),
        (10, 2, "before-after", [10, 11, 12]),
        (15, 0, "instant", [15]),
        (15, 0, "before", [15]),
    ],
)
def test_neighbours_stay_in_the_shot_and_include_the_frame(frame, count, mode, expected):
    assert neighbours(frame, Shot(10, 20), count=count, mode=mode) == expected


def test_neighbours_refuse_a_frame_outside_and_an_instant_with_neighbours():
    with pytest.raises(ValueError, match=r"must lie in the shot \[10, 20\), got 20"):
        neighbours(20, Shot(10, 20), count=1, mode="before")
    with pytest.raises(ValueError, match="0 for the mode instant"):
        neighbours(15, Shot(10, 20), count=1, mode="instant")


def test_drawn_frames_cover_the_window_and_nothing_else():
    generator, sampler = torch.Generator().manual_seed(0), FrameSampler(0.6)
    drawn = [sampler(Shot(100, 110), generator) for _ in range(300)]
    assert {len(frames) for frames in drawn} == {sampler.length(Shot(100, 110))} == {1}
    assert {frames[0] for frames in drawn} == set(range(102, 109))


def test_one_frame_takes_one_draw_of_the_generator():
    mine, plain = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    drawn = [FrameSampler(1.0)(Shot(5, 25), mine)[0] for _ in range(10)]
    assert drawn == [5 + int(torch.randint(20, (), generator=plain)) for _ in range(10)]


def test_a_limit_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="0 < limit <= 1, got 5 and 2"):
        FrameSampler(2)(Shot(0, 5), torch.Generator())


def test_frames_are_drawn_from_some_that_are_spread_over_the_shot():
    assert list(spread_frames(Shot(10, 14), 4)) == list(spread_frames(Shot(10, 14), None)) == [10, 11, 12, 13]
    assert spread_frames(Shot(10, 22), 4) == [11, 14, 17, 20]
    sampler, generator = FrameSampler(1.0, 4), torch.Generator().manual_seed(0)
    assert {sampler(Shot(10, 22), generator)[0] for _ in range(50)} == {11, 14, 17, 20}


def test_a_shot_of_two_hours_trains_on_as_few_frames_as_any_other():
    generator, shot = torch.Generator().manual_seed(0), Shot(1000, 181_000)
    frames = spread_frames(shot, 8)
    assert len(frames) == 8
    assert (frames[0] - shot.start, shot.stop - frames[-1]) == (11_250, 11_250)
    assert {FrameSampler(1.0, 8)(shot, generator)[0] for _ in range(200)} == set(frames)
    assert isinstance(spread_frames(shot, None), range)  # all of them, without a list
