import pytest
import torch

from tcam.model.heads.acol import Acol

LABEL = torch.tensor([0])


def copying(channels: int = 1) -> Acol:
    """A head whose branches copy channel 0 to class 0 and give class 1 the negative of it."""
    head = Acol(channels, 2)
    with torch.no_grad():
        for branch in (head.first, head.second):
            for layer in (branch[0], branch[2]):
                layer.weight.zero_()
                layer.weight[0, 0, 1, 1] = 1.0
            branch[4].weight.zero_()
            branch[4].weight[0, 0], branch[4].weight[1, 0] = 1.0, -1.0
    return head


def ramp() -> torch.Tensor:
    return torch.tensor([[[[0.0, 1.0], [3.0, 5.0]]]])


def test_the_second_branch_sees_what_the_first_does_not_look_at():
    # Stretched the map is 0, 0.2, 0.6, 1: the last two are erased.
    first, second = copying().both_logits(ramp(), LABEL)
    torch.testing.assert_close(first, torch.tensor([[9 / 4, -9 / 4]]))
    torch.testing.assert_close(second, torch.tensor([[1 / 4, -1 / 4]]))


def test_the_map_is_the_larger_of_the_two():
    # First 0, 0.2, 0.6, 1; second, of 0, 1, 0, 0: 0, 1, 0, 0.
    torch.testing.assert_close(copying().class_maps(ramp(), LABEL), torch.tensor([[[0.0, 1.0], [0.6, 1.0]]]))


def test_what_is_erased_depends_on_the_label():
    # The map of class 1 is 0, -1, -3, -5, stretched 1, 0.8, 0.4, 0: the first two are erased.
    _, second = copying().both_logits(ramp(), torch.tensor([1]))
    torch.testing.assert_close(second, torch.tensor([[8 / 4, -8 / 4]]))


def test_scores_are_the_first_branchs():
    torch.manual_seed(0)
    head, features = Acol(6, 3), torch.rand(2, 6, 4, 5)
    torch.testing.assert_close(head(features), head.both_logits(features, torch.tensor([0, 2]))[0])


def test_maps_of_many_frames_are_those_of_each():
    torch.manual_seed(0)
    head, features, labels = Acol(6, 3), torch.rand(3, 6, 4, 5), torch.tensor([2, 0, 1])
    maps = head.class_maps(features, labels)
    assert maps.shape == (3, 4, 5)
    assert maps.amin() >= 0
    assert maps.amax() == 1
    for i in range(3):
        torch.testing.assert_close(maps[i : i + 1], head.class_maps(features[i : i + 1], labels[i : i + 1]))


def test_no_gradient_flows_through_the_erasing():
    torch.manual_seed(0)
    head, features = Acol(4, 2), torch.rand(1, 4, 4, 4)
    head.both_logits(features, LABEL)[1].sum().backward()
    assert all(parameter.grad is None for parameter in head.first.parameters())
    assert all(parameter.grad is not None for parameter in head.second.parameters())


def test_a_constant_map_erases_nothing():
    features = torch.full((1, 1, 2, 2), 2.0)
    head = copying()
    with torch.no_grad():
        head.first[0].weight.zero_()
    torch.testing.assert_close(head.both_logits(features, LABEL)[1], torch.tensor([[2.0, -2.0]]))


def test_convolutions_are_as_wide_as_published_or_as_the_features():
    assert [Acol(channels, 2).second[2].out_channels for channels in (3, 1100)] == [3, 1024]


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="in_channels and num_classes must be 1 or more, got 8 and 0"):
        Acol(8, 0)
    with pytest.raises(ValueError, match=r"features must be \[N, 3, h, w\], got \[1, 2, 4, 4\]"):
        Acol(3, 2)(torch.zeros(1, 2, 4, 4))
