import torch

from tcam.model.heads.conv_gap import ConvGap


def test_scores_and_maps_by_hand():
    """The class's weights are 1 in the middle and 1 to the left: each pixel and its left neighbour count."""
    head = ConvGap(1, 2)
    with torch.no_grad():
        head.conv.weight.zero_()
        head.conv.weight[1, 0, 1, :2] = 1.0
        head.conv.bias.copy_(torch.tensor([0.0, 0.5]))
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    maps = head.class_maps(features, torch.tensor([1]))
    assert maps.tolist() == [[[1.5, 3.5], [3.5, 7.5]]]
    assert head(features).tolist() == [[0.0, 4.0]]
