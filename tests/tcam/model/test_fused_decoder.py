import copy

import pytest
import torch
from torch import nn

from tcam.model.decoder import UnetDecoder
from tcam.model.fused_decoder import FusedDecoder

CHANNELS = (4, 6, 8, 10)


def _trained(decoder):
    """Give BatchNorm the statistics of some training."""
    generator = torch.Generator().manual_seed(3)
    for module in decoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 2, generator=generator)
            module.bias.data.normal_(generator=generator)
    return decoder.eval()


def _levels(sides, channels=CHANNELS):
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(2, c, s, s, generator=generator) for c, s in zip(channels, sides, strict=True)]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("sides", "size", "channels"),
    [
        ((16, 8, 4, 2), (32, 32), (8, 6, 5, 4)),  # every level twice the next
        ((16, 8, 4, 2), (32, 32), (8, 6, 5)),  # a light decoder
        ((16, 8, 4, 4), (32, 32), (8, 6, 5, 4)),  # a dilated last level
        ((15, 8, 4, 2), (29, 31), (8, 6, 5, 4)),  # odd sizes
        ((8, 4, 2, 1), (32, 32), (8, 6, 5, 4)),  # a first level of stride 4
        ((32, 16, 8, 4), (32, 32), (8, 6, 5, 4)),  # a first level of full size
    ],
)
def test_maps_are_those_of_the_decoder(sides, size, channels):
    decoder, levels = _trained(UnetDecoder(CHANNELS, channels=channels)), _levels(sides)
    found = FusedDecoder(decoder)(levels, size)
    assert found.shape == (2, 2, *size)
    torch.testing.assert_close(found.softmax(dim=1), decoder(levels, size).softmax(dim=1), atol=2e-5, rtol=0)


@torch.inference_mode()
def test_very_many_channels_are_enlarged_first_with_the_same_maps():
    decoder, levels = _trained(UnetDecoder((4, 600), channels=(8, 4))), _levels((8, 4), (4, 600))
    fused = FusedDecoder(decoder)
    assert [block.enlarged is None for block in fused.blocks] == [True, False]
    torch.testing.assert_close(
        fused(levels, (16, 16)).softmax(dim=1), decoder(levels, (16, 16)).softmax(dim=1), atol=2e-5, rtol=0
    )


@torch.inference_mode()
def test_a_light_decoder_enlarges_float32_logits_under_autocast():
    decoder, levels = _trained(UnetDecoder(CHANNELS, channels=(8, 6, 5))), _levels((16, 8, 4, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = FusedDecoder(decoder)(levels, (32, 32))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.softmax(dim=1), decoder(levels, (32, 32)).softmax(dim=1), atol=0.1, rtol=0)


def test_the_decoder_stays_as_it_is():
    decoder = _trained(UnetDecoder(CHANNELS))
    before = copy.deepcopy(decoder.state_dict())
    FusedDecoder(decoder)
    assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())
    assert all(parameter.requires_grad for parameter in decoder.parameters())


def test_a_decoder_in_training_is_refused():
    with pytest.raises(ValueError, match="evaluation mode only"):
        FusedDecoder(UnetDecoder(CHANNELS))


def test_other_levels_are_refused():
    with pytest.raises(ValueError, match=r"C = \[4, 6, 8, 10\], got"):
        FusedDecoder(_trained(UnetDecoder(CHANNELS)))(_levels((8, 4), (4, 6)), (16, 16))


@torch.inference_mode()
def test_the_maps_of_each_tag_are_fused():
    decoder, levels = _trained(UnetDecoder(CHANNELS, channels=(8, 6, 5, 4), num_tags=3)), _levels((16, 8, 4, 2))
    for labels in (torch.tensor([0, 2]), torch.tensor([1, 1])):
        plain, fused = (module(levels, (32, 32), labels) for module in (decoder, FusedDecoder(decoder)))
        assert torch.allclose(plain[:, 1] - plain[:, 0], fused[:, 1] - fused[:, 0], atol=1e-4)
