import pytest
import torch

from tcam.model.pooling import Wgap


def test_scores_are_the_linear_layer_of_the_mean_features():
    head = Wgap(2, 1)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[2.0, -1.0]]))
    features = torch.tensor([[[[0.0, 2.0]], [[3.0, 5.0]]]])  # means 1 and 4
    assert head(features).tolist() == [[-2.0]]


def test_a_new_head_has_xavier_bounds_and_no_bias():
    head = Wgap(2048, 10)
    assert sum(p.numel() for p in head.parameters()) == 20_490
    bound = (6 / 2058) ** 0.5
    assert 0.95 * bound < float(head.weight.detach().abs().max()) <= bound
    assert not head.linear.bias.any()


def test_features_with_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"features must be \[N, 3, h, w\], got \[1, 2, 4, 4\]"):
        Wgap(3, 2)(torch.zeros(1, 2, 4, 4))


def test_a_head_without_classes_is_refused():
    with pytest.raises(ValueError, match="must be 1 or more, got 8 and 0"):
        Wgap(8, 0)
