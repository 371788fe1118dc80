import math

import pytest
import timm
import torch
from torch import nn

from tcam.errors import ConfigError
from tcam.model.backbone import Backbone, late_parameters
from tcam.model.tokens import class_token_row


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(0)
    return Backbone("test_vit").eval()


def images(side: int = 64, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_tokens_become_a_pyramid_whose_levels_double(transformer):
    with torch.no_grad():
        pyramid = transformer(images(96))
    assert [tuple(level.shape) for level in pyramid.levels] == [(2, 64, side, side) for side in (24, 12, 6)]
    assert pyramid.last is pyramid.levels[-1]
    assert transformer.level_channels == (64, 64, 64)
    assert transformer.level_reductions == (4, 8, 16)
    assert (transformer.patch, transformer.attends) == (16, True)


def test_the_last_level_is_the_patch_tokens_of_the_plain_network(transformer):
    with torch.no_grad():
        tokens = transformer.model.forward_features(images())
        last = transformer(images()).last
    torch.testing.assert_close(last[0, :, 1, 2], tokens[0, 1 + 4 * 1 + 2])


def test_early_levels_are_enlarged_tokens_of_early_blocks(transformer):
    with torch.no_grad():
        maps = transformer.model.forward_intermediates(images(), indices=[1, 3], intermediates_only=True)
        levels = transformer(images()).levels
    for level, found, factor in zip(levels, maps, (4, 2), strict=False):
        torch.testing.assert_close(level, nn.functional.interpolate(found, scale_factor=factor, mode="bilinear"))


class TwoHeads(nn.Module):
    """An attention layer of two heads of one channel each."""

    num_heads, head_dim, scale = 2, 1, 1.0

    def __init__(self):
        super().__init__()
        self.q_norm, self.k_norm = nn.Identity(), nn.Identity()


def test_attention_of_the_first_token_by_hand():
    # Head 0: query 1, keys 0, log 2, log 3. Head 1: query 0: all alike. Values have no part.
    projected = torch.zeros(1, 3, 6)
    projected[0, 0, 0] = 1.0
    projected[0, :, 2] = torch.tensor([1.0, 2.0, 3.0]).log()
    projected[0, :, 3] = torch.tensor([5.0, 6.0, 7.0])
    projected[0, :, 4:] = 9.0
    expected = torch.tensor([[[1 / 6, 2 / 6, 3 / 6], [1 / 3] * 3]])
    torch.testing.assert_close(class_token_row(TwoHeads(), projected), expected)


def test_attention_is_the_one_that_timm_computes(transformer):
    """The last block's output changes with attention alone: values set to one-hot read it out."""
    attention = transformer.model.blocks[-1].attn
    tokens = torch.randn(1, 17, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        projected = attention.qkv(tokens)
        query, key, _ = projected.reshape(1, 17, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        values = torch.eye(17).expand(1, attention.num_heads, 17, 17)
        expected = nn.functional.scaled_dot_product_attention(query, key, values)[:, :, 0]
        torch.testing.assert_close(class_token_row(attention, projected), expected)


def test_attention_of_every_block_and_head_is_laid_out_as_the_patches(transformer):
    with torch.no_grad():
        attention = transformer(images()).attention
    blocks, heads = len(transformer.model.blocks), transformer.model.blocks[0].attn.num_heads
    assert attention.shape == (2, blocks, heads, 4, 4)
    sums = attention.sum(dim=(3, 4))
    assert sums.amin() > 0
    assert sums.amax() < 1  # the class token looks at itself too
    assert not attention.requires_grad
    assert not any(module._forward_hooks for module in transformer.modules())


def test_registers_and_a_distillation_token_are_left_out():
    with torch.device("meta"):
        backbone = Backbone("deit_tiny_distilled_patch16_224")
    assert backbone.model.num_prefix_tokens == 2
    backbone = Backbone("test_vit", options={"reg_tokens": 4}).eval()
    with torch.no_grad():
        assert backbone(images()).last.shape == (2, 64, 4, 4)
        assert backbone(images()).attention.shape[3:] == (4, 4)


def test_late_parameters_are_the_last_third_of_the_blocks(transformer):
    names = {id(parameter): name for name, parameter in transformer.named_parameters()}
    late, _ = late_parameters(transformer)
    assert {".".join(names[id(parameter)].split(".")[1:3]) for parameter in late} == {
        *("blocks.4", "blocks.5", "norm.weight", "norm.bias")
    }


def test_weights_of_timm_load_by_their_names(transformer):
    plain = timm.create_model("test_vit", num_classes=0).state_dict()
    assert set(transformer.model.state_dict()) == set(plain)
    assert plain["pos_embed"].shape == transformer.model.pos_embed.shape  # made for its own size, resampled when run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"output_stride": 8},
            r"'test_vit' cannot have output_stride 8 \(it gave 16\); set model.output_stride to null",
        ),
        ({"levels_used": 2}, "levels_used cuts convolutional networks: model 'test_vit' is a vision transformer"),
    ],
)
def test_what_a_transformer_cannot_do_is_a_config_error(options, message):
    with pytest.raises(ConfigError, match=message):
        Backbone("test_vit", **options)
    assert Backbone("test_vit", output_stride=16).patch == 16


def test_without_a_class_token_there_is_no_attention():
    backbone = Backbone("test_vit", options={"class_token": False, "global_pool": "avg"}).eval()
    assert not backbone.attends
    with torch.no_grad():
        assert backbone(images()).attention is None
        assert math.prod(backbone(images()).last.shape) == 2 * 64 * 16
