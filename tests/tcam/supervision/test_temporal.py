from itertools import pairwise

import pytest
import torch

from tcam.supervision.temporal import overheat, temporal_max_pool


def test_each_frame_takes_the_maximum_of_itself_and_those_before():
    cam = torch.tensor([0.1, 0.5, 0.2, 0.0, 0.3]).view(1, 5, 1, 1)
    assert temporal_max_pool(cam, 2).flatten().tolist() == pytest.approx([0.1, 0.5, 0.5, 0.2, 0.3])
    assert temporal_max_pool(cam, 3).flatten().tolist() == pytest.approx([0.1, 0.5, 0.5, 0.5, 0.3])


def test_a_window_of_one_changes_nothing():
    cam = torch.rand(2, 3, 4, 4)
    assert torch.equal(temporal_max_pool(cam, 1), cam)


def test_a_window_longer_than_the_clip_pools_over_what_there_is():
    cam = torch.rand(2, 3, 4, 4)
    assert torch.equal(temporal_max_pool(cam, 99), cam.cummax(dim=1).values)


def test_pooling_never_lowers_and_grows_with_the_window():
    cam = torch.rand(2, 6, 3, 3)
    pooled = [temporal_max_pool(cam, window) for window in range(1, 8)]
    assert all(bool((wide >= narrow).all()) for narrow, wide in pairwise(pooled))


def test_pooling_binary_maps_is_their_union():
    cam = (torch.rand(1, 2, 5, 5) > 0.5).float()
    assert torch.equal(temporal_max_pool(cam, 2)[0, 1].bool(), cam[0, 0].bool() | cam[0, 1].bool())


def test_clips_and_pixels_do_not_mix():
    cam = torch.zeros(2, 2, 2, 2)
    cam[0, 0, 1, 0] = 1
    expected = cam.clone()
    expected[0, 1, 1, 0] = 1
    assert torch.equal(temporal_max_pool(cam, 2), expected)


def test_other_shapes_and_windows_are_refused():
    with pytest.raises(ValueError, match=r"cam must be \[B, T, h, w\] with T of 1 or more, got \[4, 1, 1\]"):
        temporal_max_pool(torch.zeros(4, 1, 1), 2)
    with pytest.raises(ValueError, match=r"got \[1, 0, 2, 2\]"):
        temporal_max_pool(torch.zeros(1, 0, 2, 2), 2)
    with pytest.raises(ValueError, match="window must be 1 or more frames, got 0"):
        temporal_max_pool(torch.zeros(1, 1, 1, 1), 0)


@pytest.mark.parametrize(
    ("temperature", "expected"), [(1.0, [0.367879, 0.606531, 1.0]), (10.0, [4.539993e-5, 6.737947e-3, 1.0])]
)
def test_overheating_has_the_published_values(temperature, expected):
    cam = torch.tensor([[[0.0, 0.5, 1.0]]])
    assert overheat(cam, temperature).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_overheating_works_map_by_map_and_does_not_overflow():
    cam = torch.tensor([[[0.0, 0.5]], [[0.2, 1.0]]])
    hot = overheat(cam, 500.0)
    assert hot.isfinite().all()
    assert hot.amax(dim=(1, 2)).tolist() == [1.0, 1.0]


def test_a_temperature_of_zero_changes_nothing():
    cam = torch.rand(2, 3, 3)
    assert torch.equal(overheat(cam, 0.0), cam)


def test_a_temperature_below_zero_or_a_vector_is_refused():
    with pytest.raises(ValueError, match="temperature must be 0 or more, got -1"):
        overheat(torch.zeros(2, 2), -1)
    with pytest.raises(ValueError, match=r"cam must be \[..., h, w\], got \[3\]"):
        overheat(torch.zeros(3), 1)
