import pytest
import torch

from tcam.boxes.ddt import component_boxes, component_maps, principal_component


def some_features(frames: int = 3, channels: int = 5, side: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([3.0, 1.0, 1.0, 0.5, 0.2])[:channels]
    return torch.randn(frames, channels, side, side, generator=generator) * scale[:, None, None] + 2


def test_the_component_is_the_first_eigenvector_of_the_covariance():
    features = some_features()
    found = principal_component(features)
    descriptors = features.movedim(1, 3).reshape(-1, 5).double()
    expected = torch.linalg.eigh(torch.cov(descriptors.T)).eigenvectors[:, -1]
    torch.testing.assert_close(found.mean.double(), descriptors.mean(0), rtol=1e-5, atol=1e-5)
    assert float((found.direction.double() @ expected).abs()) == pytest.approx(1, abs=1e-5)


def test_the_maps_are_the_projections_of_centred_descriptors_by_hand():
    features = torch.zeros(1, 2, 3, 3)
    features[0, 0, 1, 1] = 9.0  # one descriptor of nine is (9, 0): mean (1, 0), direction (1, 0)
    found = principal_component(features)
    torch.testing.assert_close(found.direction, torch.tensor([1.0, 0.0]))
    expected = torch.full((1, 3, 3), -1.0)
    expected[0, 1, 1] = 8.0
    torch.testing.assert_close(component_maps(features, found), expected)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_border_of_the_frames_is_negative_whatever_the_features_say(sign):
    features = torch.zeros(2, 3, 8, 8)
    features[:, 1, 2:5, 3:6] = sign * 4
    found = principal_component(features)
    assert (component_maps(features, found)[:, 2:5, 3:6] > 0).all()
    boxes = component_boxes(component_maps(features, found), (8, 8))
    assert boxes.tolist() == [[3, 2, 6, 5]] * 2


def test_the_order_of_frames_and_of_channels_does_not_matter():
    features = some_features()
    frames, channels = torch.tensor([2, 0, 1]), torch.tensor([4, 2, 0, 1, 3])
    maps = component_maps(features, principal_component(features))
    for other in (features[frames], features[frames][:, channels]):
        torch.testing.assert_close(
            component_maps(other, principal_component(other)), maps[frames], rtol=1e-3, atol=1e-3
        )


def test_the_largest_positive_part_is_boxed_and_nothing_is_nothing():
    maps = torch.full((2, 8, 8), -1.0)
    maps[0, 0:2, 0:2] = 5.0
    maps[0, 4:7, 3:8] = 0.1
    boxes = component_boxes(maps, (8, 8))
    assert boxes[0].tolist() == [3, 4, 8, 7]
    assert boxes[1].isnan().all()


def test_frames_that_are_all_alike_have_no_object():
    features = torch.full((2, 3, 4, 4), 1.5)
    found = principal_component(features)
    assert found.direction.tolist() == [0, 0, 0]
    assert component_boxes(component_maps(features, found), (16, 16)).isnan().all()


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"features must be \[N, D, h, w\] with something in them, got \[0, 3, 4, 4\]"):
        principal_component(torch.zeros(0, 3, 4, 4))
    with pytest.raises(ValueError, match=r"maps must be \[N, h, w\], got \[4, 4\]"):
        component_boxes(torch.zeros(4, 4), (8, 8))
