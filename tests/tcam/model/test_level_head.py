import pytest
import torch

from tcam.model.backbone import Backbone
from tcam.model.level_head import LevelHead, sixteenth


def some_levels(side: int = 64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {2: 3, 4: 5, 8: 7, 16: 11, 32: 13}
    return [torch.rand(2, c, side // r, side // r, generator=generator) for r, c in sizes.items()]


def test_the_level_at_a_sixteenth_and_the_one_before_it_are_taken():
    levels = some_levels()
    fine, middle = sixteenth(levels, (64, 64))
    assert torch.equal(middle, levels[3])
    assert torch.allclose(fine[1, 2, 0, 1], levels[2][1, 2, :2, 2:4].mean())
    again = sixteenth([fine, middle], (64, 64))
    assert all(torch.equal(a, b) for a, b in zip(again, (fine, middle), strict=True))


def test_of_equal_levels_the_coarser_is_taken_and_a_single_level_stands_for_both():
    levels = [torch.rand(1, 2, 8, 8), torch.rand(1, 3, 8, 8)]  # stride 8 twice, as dilated networks have
    assert [part.shape[1] for part in sixteenth(levels, (64, 64))] == [2, 3]
    assert [part.shape[1] for part in sixteenth(levels[:1], (64, 64))] == [2, 2]


def test_maps_are_the_same_from_all_levels_and_from_what_is_left_of_them():
    levels = some_levels()
    last = torch.rand(2, 20, 2, 2)
    head = LevelHead((3, 5, 7, 11, 13), 20, (2, 4, 8, 16, 32)).eval()
    maps = head((*levels, last), (64, 64))
    assert maps.shape == (2, 2, 64, 64)
    assert torch.equal(maps, head((*sixteenth(levels, (64, 64)), last), (64, 64)))
    with pytest.raises(ValueError, match=r"features must be three \[N, C, h, w\] with C = \[7, 11, 20\]"):
        head((*levels, last[:, :3]), (64, 64))


def test_it_learns_where_the_object_is_from_frozen_features():
    torch.manual_seed(0)
    levels, last = some_levels(), torch.rand(2, 20, 2, 2)
    head = LevelHead((3, 5, 7, 11, 13), 20, (2, 4, 8, 16, 32))
    target = torch.zeros(2, 64, 64)
    target[0, :32], target[1, :, 32:] = 1, 1
    optimizer = torch.optim.AdamW(head.parameters(), 5e-3)
    for _ in range(60):
        maps = head((*levels, last), (64, 64)).softmax(1)[:, 1]
        loss = torch.nn.functional.binary_cross_entropy(maps, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = head.eval()((*levels, last), (64, 64)).softmax(1)[:, 1]
    assert (found.round() == target).float().mean() > 0.9


@pytest.mark.parametrize("name", ["mobilenetv2_100", "resnet18", "deit_tiny_patch16_224"])
def test_it_fits_the_usual_backbones(name):
    backbone = Backbone(name)
    head = LevelHead(backbone.level_channels, backbone.last_channels, backbone.level_reductions)
    pyramid = backbone(torch.rand(1, 3, 96, 96))
    assert head.eval()((*pyramid.levels, pyramid.last), (96, 96)).shape == (1, 2, 96, 96)


def test_each_of_several_tags_has_maps_of_its_own():
    features = (*some_levels(), torch.rand(2, 20, 2, 2))
    head = LevelHead((3, 5, 7, 11, 13), 20, (2, 4, 8, 16, 32), num_tags=3).eval()
    maps = [head(features, (64, 64), torch.full((2,), tag)) for tag in range(3)]
    assert {found.shape for found in maps} == {(2, 2, 64, 64)}
    assert not torch.allclose(maps[0], maps[1])
    mixed = head(features, (64, 64), torch.tensor([2, 0]))
    assert torch.equal(mixed, torch.stack([maps[2][0], maps[0][1]]))
