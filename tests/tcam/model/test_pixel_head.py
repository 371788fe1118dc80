import pytest
import torch

from tcam.model.pixel_head import PixelHead


def test_every_feature_is_classified_alone_and_the_maps_are_enlarged():
    head = PixelHead(2)
    with torch.no_grad():
        head.conv.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -2.0]])[:, :, None, None])
        head.conv.bias.copy_(torch.tensor([0.5, 0.0]))
    features = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])
    maps = head((torch.zeros(1, 7, 9, 9), features), (1, 2))
    assert maps.tolist() == [[[[1.5, 3.5]], [[-4.0, 0.0]]]]
    assert head((features,), (1, 4))[0, 0, 0].tolist() == [1.5, 2.0, 3.0, 3.5]  # bilinear, corners not aligned


def test_other_features_are_refused():
    with pytest.raises(ValueError, match=r"features must be \[N, 3, h, w\], got \[1, 2, 4, 4\]"):
        PixelHead(3)((torch.zeros(1, 2, 4, 4),), (8, 8))
    with pytest.raises(ValueError, match="in_channels must be 1 or more, got 0"):
        PixelHead(0)


def test_each_of_several_tags_has_maps_of_its_own():
    head, features = PixelHead(2, num_tags=2), torch.rand(1, 2, 3, 3)
    logits = head.conv(features)
    for tag in (0, 1):
        maps = head((features,), (3, 3), torch.tensor([tag]))
        assert torch.equal(maps, logits[:, 2 * tag : 2 * tag + 2])
