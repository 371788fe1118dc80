import pytest
import torch

from tcam.model.cam import cam, gradient_layer_cam, layer_cam, normalize_cam
from tcam.model.pooling import Wgap


def _case():
    features = torch.tensor([[[[1.0, 2.0]], [[4.0, 0.0]]], [[[0.0, 1.0]], [[1.0, 1.0]]]])  # [2, 2, 1, 2]
    weight = torch.tensor([[1.0, -2.0], [3.0, 1.0]])
    return features, weight, torch.tensor([0, 1])


def test_cam_weighs_features_by_the_labels_class():
    assert cam(*_case()).tolist() == [[[-7.0, 2.0]], [[1.0, 4.0]]]


def test_layer_cam_counts_positive_weights_only():
    assert layer_cam(*_case()).tolist() == [[[1.0, 2.0]], [[1.0, 4.0]]]


def test_layer_cam_equals_its_gradient_form_after_stretching():
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(4, 8, 5, 6, generator=generator).requires_grad_()
    head, labels = Wgap(8, 3), torch.tensor([0, 1, 2, 1])
    scores = head(features)[torch.arange(4), labels]
    by_gradient = normalize_cam(gradient_layer_cam(features, scores))
    closed = normalize_cam(layer_cam(features.detach(), head.weight.detach(), labels))
    torch.testing.assert_close(by_gradient, closed)


def test_rectified_cam_is_grad_cam_of_a_pooled_linear_head():
    features = torch.rand(2, 4, 3, 3).requires_grad_()
    head, labels = Wgap(4, 2), torch.tensor([1, 0])
    (gradient,) = torch.autograd.grad(head(features)[torch.arange(2), labels].sum(), features)
    grad_cam = (gradient.mean(dim=(2, 3), keepdim=True) * features).sum(1).relu()
    closed = cam(features.detach(), head.weight.detach(), labels).relu()
    torch.testing.assert_close(grad_cam.detach() * 9, closed)


def test_stretched_maps_reach_0_and_1_and_constant_ones_are_0():
    maps = torch.tensor([[[2.0, 4.0], [3.0, 2.0]], [[5.0, 5.0], [5.0, 5.0]]])
    assert normalize_cam(maps).tolist() == [[[0.0, 1.0], [0.5, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]


def test_a_map_with_a_nan_becomes_0_and_leaves_the_others_alone():
    maps = torch.tensor([[[0.0, torch.nan]], [[1.0, 3.0]]])
    assert normalize_cam(maps).tolist() == [[[0.0, 0.0]], [[0.0, 1.0]]]


def test_shapes_that_do_not_fit_are_refused():
    features, weight, labels = _case()
    with pytest.raises(ValueError, match=r"got \[2, 2, 1, 2\], \[2, 2\], \[1\]"):
        cam(features, weight, labels[:1])
    with pytest.raises(ValueError, match=r"got \[2, 2, 1, 2\], \[2, 1\], \[2\]"):
        layer_cam(features, weight[:, :1], labels)
    with pytest.raises(ValueError, match=r"maps must be \[N, h, w\], got \[2, 2\]"):
        normalize_cam(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="features must require a gradient"):
        gradient_layer_cam(features, features.sum(dim=(1, 2, 3)))
    with pytest.raises(ValueError, match=r"scores \[N\], got"):
        gradient_layer_cam(features, torch.zeros(3))
