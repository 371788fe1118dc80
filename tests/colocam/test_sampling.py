import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from colocam.sampling import SequenceSampler
from tcam.types import Shot
from tcam.video.clips import FrameSampler, frame_window

STYLES = ("adjacent", "gaussian", "interval")
SIDES = ("before", "after", "before-after")


def draws(sampler, shot, count=400):
    generator = torch.Generator().manual_seed(0)
    return [sampler(shot, generator) for _ in range(count)]


@given(
    count=st.integers(1, 9),
    style=st.sampled_from(STYLES),
    side=st.sampled_from(SIDES),
    limit=st.floats(0.05, 1.0),
    start=st.integers(0, 50),
    size=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_a_sequence_has_its_length_lies_in_the_window_and_rises(count, style, side, limit, start, size, seed):
    shot, sampler = Shot(start, start + size), SequenceSampler(count, style=style, side=side, limit=limit)
    frames = sampler(shot, torch.Generator().manual_seed(seed))
    window = frame_window(size, limit)
    assert len(frames) == sampler.length(shot) == min(count, len(window))
    assert set(frames) <= {start + place for place in window}
    assert frames == sorted(set(frames))
    assert frames == sampler(shot, torch.Generator().manual_seed(seed))
    if style == "adjacent":
        assert frames == list(range(frames[0], frames[-1] + 1))


@pytest.mark.parametrize(
    ("side", "starts"),
    [
        # anchors 0..9 give the start: 4 frames that end at the anchor, begin at it, or lie around it, shifted to fit
        ("before", {10: 4, 11: 1, 12: 1, 13: 1, 14: 1, 15: 1, 16: 1}),
        ("after", {10: 1, 11: 1, 12: 1, 13: 1, 14: 1, 15: 1, 16: 4}),
        ("before-after", {10: 3, 11: 1, 12: 1, 13: 1, 14: 1, 15: 1, 16: 2}),
    ],
)
def test_adjacent_frames_lie_on_their_side_of_a_uniform_anchor(side, starts):
    found = draws(SequenceSampler(4, side=side), Shot(10, 20), 4000)
    shares = Counter(frames[0] for frames in found)
    assert shares.keys() == starts.keys()
    for start, tenths in starts.items():
        assert shares[start] / 4000 == pytest.approx(tenths / 10, abs=0.03)


def test_intervals_give_one_frame_of_each_of_numpys_parts():
    parts = [set(part.tolist()) for part in np.array_split(np.arange(20, 31), 4)]
    assert [len(part) for part in parts] == [3, 3, 3, 2]
    columns = zip(*draws(SequenceSampler(4, style="interval"), Shot(20, 31)), strict=True)
    assert [set(column) for column in columns] == parts


def test_gaussian_frames_are_as_likely_as_the_paper_says():
    found = draws(SequenceSampler(1, style="gaussian", spread=0.2), Shot(0, 6), 6000)
    bell = 1 / (0.2 * (2 * np.pi) ** 0.5)  # at the middle; 0.2 frames away from it is 5 spreads, so nothing there
    shares = Counter(frames[0] for frames in found)
    expected = {place: (1 + bell * (place == 3)) / (6 + bell) for place in range(6)}
    for place, share in expected.items():
        assert shares[place] / 6000 == pytest.approx(share, abs=0.02)


def test_a_sequence_of_one_frame_is_drawn_as_tcam_draws_it():
    one = draws(SequenceSampler(1, limit=0.6), Shot(3, 40))
    assert one == draws(FrameSampler(0.6), Shot(3, 40))


@pytest.mark.parametrize(("limit", "listed"), [(1.0, [12, 17, 22, 27, 32, 37]), (0.6, [22, 27, 32])])
def test_of_spread_frames_those_next_to_each_other_in_the_list_are_adjacent(limit, listed):
    shot, sampler = Shot(10, 40), SequenceSampler(2, limit=limit, most=6)
    assert {tuple(frames) for frames in draws(sampler, shot)} == set(itertools.pairwise(listed))
    assert sampler.length(shot) == 2
    assert SequenceSampler(9, limit=limit, most=6).length(shot) == len(listed)
    assert SequenceSampler(9, limit=limit, most=6)(shot, torch.Generator()) == listed


@pytest.mark.parametrize("style", STYLES)
def test_of_spread_frames_every_style_draws_from_these_alone(style):
    sampler = SequenceSampler(2, style=style, most=3)
    found = {frame for frames in draws(sampler, Shot(0, 30)) for frame in frames}
    assert found == {5, 15, 25}


@pytest.mark.parametrize("style", STYLES)
def test_a_shot_of_fewer_frames_is_used_whole(style):
    sampler = SequenceSampler(4, style=style)
    for size in (1, 2, 4):
        assert sampler(Shot(7, 7 + size), torch.Generator()) == list(range(7, 7 + size))
        assert sampler.length(Shot(7, 7 + size)) == size
    assert SequenceSampler(4, style=style, limit=0.6)(Shot(0, 5), torch.Generator()) == [1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"count": 2, "limit": 0.0}, "limit must be above 0 and at most 1, got 0"),
        ({"count": 2, "limit": 1.1}, "limit must be above 0 and at most 1, got 1.1"),
        ({"count": 2, "spread": 0.0}, "spread must be above 0, got 0"),
        ({"count": 2, "spread": float("nan")}, "spread must be above 0, got nan"),
        ({"count": 2, "style": "random"}, "style and side must be of adjacent, gaussian, interval and .*, got random"),
        ({"count": 2, "side": "left"}, "got adjacent and left"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SequenceSampler(**settings)
