import math

import pytest
import torch

from tcam.model.heads.pooling import POOLINGS, WITH_BACKGROUND, AttentionMil, Gap, LogSumExp, MaxPool, Wgap, Wildcat

ZERO = torch.tensor([0])


def one_class(head, weight=(1.0, 0.0), bias=0.5):
    """Let the map of a head's only class be ``weight . features + bias``."""
    with torch.no_grad():
        head.maps.conv.weight.copy_(torch.tensor(weight)[None, :, None, None].expand_as(head.maps.conv.weight))
        head.maps.conv.bias.fill_(bias)
    return head


def ramp():
    """4 x 4 features: channel 0 is -3, -2, ..., 12, channel 1 is 1."""
    return torch.stack([torch.arange(-3.0, 13.0).view(4, 4), torch.ones(4, 4)])[None]


def test_scores_are_the_linear_layer_of_the_mean_features():
    head = Wgap(2, 1)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[2.0, -1.0]]))
    features = torch.tensor([[[[0.0, 2.0]], [[3.0, 5.0]]]])  # means 1 and 4
    assert head(features).tolist() == [[-2.0]]
    assert head.class_maps(features, ZERO).tolist() == [[[-3.0, -1.0]]]


def test_a_new_head_has_xavier_bounds_and_no_bias():
    head = Wgap(2048, 10)
    assert sum(p.numel() for p in head.parameters()) == 20_490
    bound = (6 / 2058) ** 0.5
    assert 0.95 * bound < float(head.weight.detach().abs().max()) <= bound
    assert not head.linear.bias.any()


def test_gap_is_the_mean_of_its_maps():
    head = one_class(Gap(2, 1))
    assert head(ramp()).tolist() == [[4.5 + 0.5]]
    torch.testing.assert_close(head.class_maps(ramp(), ZERO), ramp()[:, 0] + 0.5)


def test_gap_scores_as_wgap_of_the_same_weights():
    torch.manual_seed(0)
    gap, wgap, features = Gap(5, 3, background=True), Wgap(5, 3), torch.rand(2, 5, 4, 4)
    with torch.no_grad():
        wgap.weight.copy_(gap.pooled_weight)
    torch.testing.assert_close(gap(features), wgap(features))


def test_max_is_the_highest_pixel_of_its_maps():
    assert one_class(MaxPool(2, 1))(ramp()).tolist() == [[12.5]]
    assert one_class(MaxPool(2, 1), (-2.0, 1.0))(ramp()).tolist() == [[6.0 + 1.0 + 0.5]]


def test_log_sum_exp_by_hand():
    # Half of the pixels 0, half log(3) / 10: log((1 + 3) / 2) / 10.
    features = torch.zeros(1, 2, 4, 4)
    features[0, 0, :2] = math.log(3) / 10
    found = one_class(LogSumExp(2, 1), bias=0.0)(features)
    torch.testing.assert_close(found, torch.tensor([[math.log(2) / 10]]))


def test_log_sum_exp_lies_between_mean_and_maximum():
    features = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    gentle, own, sharp = (one_class(LogSumExp(2, 1, sharpness=r))(features) for r in (1e-3, 10.0, 1e3))
    mean, highest = one_class(Gap(2, 1))(features), one_class(MaxPool(2, 1))(features)
    torch.testing.assert_close(gentle, mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(sharp, highest, rtol=0, atol=1e-2)
    assert ((mean < own) & (own < highest)).all()


def test_wildcat_by_hand():
    # Of 16 pixels the top 8 are 5..12 (mean 8.5), the lowest 2 are -3 and -2 (mean -2.5).
    head = one_class(Wildcat(2, 1), bias=0.0)
    torch.testing.assert_close(head(ramp()), torch.tensor([[(8.5 + 0.6 * -2.5) / 2]]))


def test_wildcat_counts_evidence_against_a_class():
    head, features = one_class(Wildcat(2, 1)), ramp()
    against = features.clone()
    against[0, 0, 0, 0] = -100.0
    assert head(against).item() < head(features).item() - 10


def test_wildcats_maps_are_the_mean_over_modalities():
    torch.manual_seed(0)
    head, features = Wildcat(3, 2), torch.rand(2, 3, 4, 4)
    raw = head.maps.conv(features)  # modalities of class 0, then of class 1
    assert raw.shape == (2, 10, 4, 4)
    maps = head.class_maps(features, torch.tensor([1, 0]))
    torch.testing.assert_close(maps[0], raw[0, 5:].mean(dim=0))
    torch.testing.assert_close(maps[1], raw[1, :5].mean(dim=0))


def test_attention_by_hand():
    # Attention log(3) on the first row and 0 elsewhere: pixels of the first row weigh 3 / (4 * 3 + 12), others 1 / 24.
    head = AttentionMil(2, 1)
    with torch.no_grad():
        for layer in (head.hidden, head.attend):
            layer.weight.zero_()
        head.hidden.weight[0, 1] = 1.0
        head.attend.weight[0, 0] = math.log(3) / math.tanh(1)
        head.linear.weight.copy_(torch.tensor([[2.0, 0.0]]))
        head.linear.bias.fill_(0.25)
    features = ramp()
    features[0, 1, 1:] = 0
    attention = torch.full((1, 4, 4), 1 / 24)
    attention[0, 0] = 3 / 24
    torch.testing.assert_close(head.attention(features), attention)
    # Channel 0: the first row sums to -6, the others to 78.
    torch.testing.assert_close(head(features), torch.tensor([[2 * (3 * -6 + 78) / 24 + 0.25]]))
    torch.testing.assert_close(head.class_maps(features, ZERO), 2 * attention * features[:, 0])


@pytest.mark.parametrize("name", POOLINGS)
def test_a_map_is_of_the_label_asked_for(name):
    torch.manual_seed(0)
    head, features = POOLINGS[name](3, 4), torch.randn(4, 3, 5, 6)
    labels = torch.tensor([2, 0, 1, 3])
    maps = head.class_maps(features, labels)
    assert maps.shape == (4, 5, 6)
    for i, label in enumerate(labels.tolist()):
        alone = head.class_maps(features[i : i + 1].expand(4, -1, -1, -1), torch.arange(4))
        torch.testing.assert_close(maps[i], alone[label])


@pytest.mark.parametrize("name", ["gap", "max", "lse", "wildcat"])
def test_scores_are_what_the_own_maps_pool_to(name):
    """A class's score follows from its map alone, which a second head that copies the map shows."""
    torch.manual_seed(0)
    head, features = POOLINGS[name](3, 2), torch.randn(2, 3, 4, 4)
    for label in (0, 1):
        maps = head.class_maps(features, torch.full((2,), label))
        copy = one_class(POOLINGS[name](1, 1), (1.0,), bias=0.0)
        torch.testing.assert_close(copy(maps[:, None])[:, 0], head(features)[:, label])


@pytest.mark.parametrize("name", WITH_BACKGROUND)
def test_the_background_comes_first_and_has_no_part_in_the_scores(name):
    torch.manual_seed(0)
    plain, more = POOLINGS[name](3, 2), POOLINGS[name](3, 2, background=True)
    own = plain.maps.conv.out_channels
    extra = own // 2
    assert more.maps.conv.out_channels == own + extra
    with torch.no_grad():
        more.maps.conv.weight[:extra] = 100.0
        more.maps.conv.weight[extra:] = plain.maps.conv.weight
    features, labels = torch.rand(2, 3, 4, 4), torch.tensor([0, 1])
    torch.testing.assert_close(more(features), plain(features))
    torch.testing.assert_close(more.class_maps(features, labels), plain.class_maps(features, labels))


@pytest.mark.parametrize("name", POOLINGS)
def test_gradients_are_those_of_finite_differences(name):
    torch.manual_seed(0)
    head = POOLINGS[name](3, 2).double()
    features = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, (features,))


@pytest.mark.parametrize("name", POOLINGS)
def test_a_few_steps_lower_the_loss(name):
    torch.manual_seed(0)
    head, features, labels = POOLINGS[name](6, 3), torch.randn(9, 6, 4, 4), torch.arange(9) % 3
    optimizer = torch.optim.SGD(head.parameters(), lr=0.05)
    losses = []
    for _ in range(10):
        loss = torch.nn.functional.cross_entropy(head(features), labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in head.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", POOLINGS)
def test_a_map_of_one_pixel_is_pooled(name):
    assert POOLINGS[name](3, 2)(torch.rand(1, 3, 1, 1)).isfinite().all()


@pytest.mark.parametrize("name", POOLINGS)
def test_features_with_other_channels_are_refused(name):
    with pytest.raises(ValueError, match=r"features must be \[N, 3, h, w\], got \[1, 2, 4, 4\]"):
        POOLINGS[name](3, 2)(torch.zeros(1, 2, 4, 4))


@pytest.mark.parametrize("name", POOLINGS)
def test_a_head_without_classes_is_refused(name):
    with pytest.raises(ValueError, match="must be 1 or more, got 8 and 0"):
        POOLINGS[name](8, 0)
