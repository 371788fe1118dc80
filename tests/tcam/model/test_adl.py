import math

import pytest
import torch

from tcam.errors import ConfigError
from tcam.model.adl import AttentionDropout, weigh_by_importance
from tcam.model.backbone import Backbone


def two_channels() -> torch.Tensor:
    """Means over the channels: 1, 2, 3, 4 (the first frame) and 0, 0, 0, 10 (the second)."""
    first = torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[2.0, 3.0], [4.0, 5.0]]])
    second = torch.zeros(2, 2, 2)
    second[:, 1, 1] = 10.0
    return torch.stack([first, second])


def test_the_drop_mask_by_hand():
    found = AttentionDropout(threshold=0.75).drop(two_channels())  # 0.75 * 4 = 3: the last row goes
    expected = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]], [[2.0, 3.0], [0.0, 0.0]]], [[[0.0, 0.0]] * 2] * 2])
    assert torch.equal(found, expected)


def test_the_importance_map_by_hand():
    found = weigh_by_importance(two_channels())
    for y, x, mean in ((0, 0, 1), (0, 1, 2), (1, 0, 3), (1, 1, 4)):
        expected = two_channels()[0, :, y, x] / (1 + math.exp(-mean))
        torch.testing.assert_close(found[0, :, y, x], expected)


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv2_100", "test_convnext", "test_efficientnet"])
def test_it_acts_on_the_last_levels_of_many_networks_and_leaves_nothing_behind(name):
    backbone, frames = Backbone(name).eval(), torch.rand(2, 3, 64, 64)
    dropout = AttentionDropout(drop_rate=1e-9, levels=2)  # the importance map changes signed features, too
    dropout.check(backbone)
    with torch.no_grad():
        plain = backbone(frames)
        with dropout.acting_on(backbone, torch.Generator().manual_seed(0)):
            changed = backbone(frames)
        after = backbone(frames)
    same = [torch.equal(one, two) for one, two in zip(plain.levels, changed.levels, strict=True)]
    assert same == [True] * (len(same) - 2) + [False] * 2
    assert not torch.equal(plain.last, changed.last)
    assert torch.equal(plain.last, after.last)


def test_each_layer_draws_which_of_the_two_it_does():
    backbone, frames = Backbone("test_resnet", levels_used=2).eval(), torch.rand(1, 3, 32, 32)

    def last(seed: int, rate: float) -> torch.Tensor:
        with torch.no_grad(), AttentionDropout(rate, levels=1).acting_on(backbone, torch.Generator().manual_seed(seed)):
            return backbone(frames).last

    dropped, weighed = last(0, 1.0), last(0, 1e-9)
    assert not torch.equal(dropped, weighed)
    drawn = [torch.equal(last(seed, 0.75), dropped) for seed in range(40)]
    assert all(torch.equal(last(seed, 0.75), dropped if drawn[seed] else weighed) for seed in range(40))
    assert 22 < sum(drawn) < 38


def test_gradients_flow_through_what_is_left():
    features = two_channels().requires_grad_()
    AttentionDropout(threshold=0.75).drop(features).sum().backward()
    assert features.grad is not None
    assert features.grad[0, 0].tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_where_attention_is_nowhere_above_0_nothing_is_dropped():
    features = -two_channels() - 1
    assert torch.equal(AttentionDropout().drop(features), features)


def test_a_vision_transformer_has_no_such_layers():
    with pytest.raises(ConfigError, match=r"ADL needs 3 levels .* found 0 in model 'test_vit'"):
        AttentionDropout().check(Backbone("test_vit"))


def test_a_network_with_fewer_levels_is_a_config_error():
    backbone = Backbone("test_resnet", levels_used=2)
    with pytest.raises(ConfigError, match=r"ADL needs 3 levels .* found 2 in model 'test_resnet'"):
        AttentionDropout().check(backbone)
    assert not any(module._forward_hooks for module in backbone.modules())
