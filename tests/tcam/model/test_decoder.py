import pytest
import torch

from tcam.errors import ConfigError
from tcam.model.decoder import UnetDecoder, maps_of


def _levels(channels, sides):
    return [torch.rand(2, c, s, s) for c, s in zip(channels, sides, strict=True)]


def test_the_resnet50_decoder_has_the_published_parameter_count():
    decoder = UnetDecoder((64, 256, 512, 1024, 2048))
    assert sum(p.numel() for p in decoder.parameters()) == 9_013_218


@pytest.mark.parametrize(
    ("sides", "size"),
    [
        ((16, 8, 4, 2), (32, 32)),  # every level twice the next
        ((16, 8, 4, 4), (32, 32)),  # a dilated last level
        ((15, 8, 4, 2), (29, 31)),  # odd sizes
        ((8, 4, 2, 1), (32, 32)),  # a first level of stride 4
        ((32, 16, 8, 4), (32, 32)),  # a first level of full size
    ],
)
def test_maps_have_the_size_of_the_image(sides, size):
    channels = (4, 6, 8, 10)
    assert UnetDecoder(channels)(_levels(channels, sides), size).shape == (2, 2, *size)


def test_gradients_reach_every_parameter_and_every_level():
    channels = (4, 6, 8)
    decoder = UnetDecoder(channels, channels=(8, 8, 4))
    levels = [level.requires_grad_() for level in _levels(channels, (16, 8, 4))]
    decoder(levels, (32, 32)).square().sum().backward()
    assert all(p.grad is not None for p in decoder.parameters())
    assert all(level.grad.abs().sum() > 0 for level in levels)


def test_nearest_doubling_keeps_a_constant_map_constant_inside():
    decoder = UnetDecoder((1,), channels=(2,)).eval()
    maps = decoder([torch.ones(1, 1, 8, 8)], (16, 16))[0, :, 4:-4, 4:-4]
    assert torch.allclose(maps, maps[:, :1, :1].expand_as(maps))


def test_a_pyramid_deeper_than_the_channels_is_a_config_error():
    with pytest.raises(ConfigError, match=r"each of the backbone's 3 levels, or .* got \[8\]; .*levels_used to 1"):
        UnetDecoder((1, 2, 3), channels=(8,))


def test_a_light_decoder_ends_at_the_finest_level_and_enlarges_its_logits():
    decoder = UnetDecoder((4, 6, 8), channels=(8, 4)).eval()
    levels = _levels((4, 6, 8), (16, 8, 4))
    small, large = decoder(levels, (16, 16)), decoder(levels, (32, 32))
    expected = torch.nn.functional.interpolate(small, size=(32, 32), mode="bilinear", align_corners=True)
    torch.testing.assert_close(large, expected)
    assert len(decoder.blocks) == 2
    assert UnetDecoder((4,), channels=(8,))(_levels((4,), (16,)), (32, 32)).shape == (2, 2, 32, 32)


def test_no_level_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one level"):
        UnetDecoder(())


def test_levels_of_other_channels_or_another_number_are_refused():
    decoder = UnetDecoder((4, 6))
    with pytest.raises(ValueError, match=r"C = \[4, 6\], got"):
        decoder(_levels((4, 5), (8, 4)), (16, 16))
    with pytest.raises(ValueError, match=r"C = \[4, 6\], got"):
        decoder(_levels((4,), (8,)), (16, 16))


def test_maps_of_one_tag_per_frame_are_taken_from_those_of_all():
    maps = torch.arange(12.0).view(2, 6, 1, 1)  # two maps for each of three tags
    assert maps_of(maps, torch.tensor([2, 0])).flatten().tolist() == [4, 5, 6, 7]
    assert maps_of(maps, torch.tensor([2, 0]), per_tag=1).flatten().tolist() == [2, 6]
    assert maps_of(maps[:, :2], None) is not None
    for labels in (None, torch.tensor([0])):
        with pytest.raises(ValueError, match=r"labels must be \[N\], one for each of 2 frames"):
            maps_of(maps, labels)


def test_a_decoder_for_several_tags_learns_from_the_asked_one_only():
    decoder = UnetDecoder((4, 6), channels=(8, 4), num_tags=3)
    decoder(_levels((4, 6), (16, 8)), (32, 32), torch.tensor([1, 1])).square().sum().backward()
    grads = decoder.head.weight.grad.flatten(1).abs().sum(dim=1)
    assert (grads > 0).tolist() == [False, False, True, True, False, False]
