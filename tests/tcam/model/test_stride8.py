import pytest
import torch
from torch import nn

from tcam.errors import WeightsError
from tcam.model.backbone import Backbone, late_parameters, load_backbone_weights
from tcam.model.decoder import UnetDecoder
from tcam.model.stride8 import NEW


@pytest.fixture(scope="module")
def vgg():
    return Backbone("vgg16", output_stride=8).eval()


@pytest.fixture(scope="module")
def inception():
    return Backbone("inception_v3", output_stride=8).eval()


def without_weights(name, **options):
    """Build a network of which only names and shapes are needed: drawing random weights takes most of the time."""
    with torch.device("meta"):
        return Backbone(name, **options)


def shapes_of(backbone, side=224):
    with torch.no_grad():
        pyramid = backbone(torch.rand(1, 3, side, side))
    assert pyramid.last is pyramid.levels[-1]
    return [(level.shape[1], level.shape[2]) for level in pyramid.levels]


@pytest.mark.slow
def test_vgg16_has_the_published_levels_and_parameters(vgg):
    assert shapes_of(vgg) == [(64, 224), (128, 112), (256, 56), (1024, 28)]
    assert vgg.level_reductions == (1, 2, 4, 8)
    assert vgg.has_new_stage
    # The 13 convolutions of VGG-16, then 512 x 1024 x 9 + 1024.
    assert sum(parameter.numel() for parameter in vgg.parameters()) == 14_714_688 + 4_719_616


@pytest.mark.slow
def test_inception_has_the_published_levels(inception):
    assert shapes_of(inception) == [(64, 110), (80, 56), (288, 28), (768, 28), (1024, 28)]
    assert inception.level_reductions == (2, 4, 8, 8, 8)
    assert not [name for name, _ in inception.named_parameters() if "Mixed_7" in name]


@pytest.mark.slow
def test_layers_keep_the_names_of_their_weights(vgg, inception):
    indices = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]  # torchvision's, and timm's
    expected = {f"features.{i}.{kind}" for i in indices for kind in ("weight", "bias")}
    assert {name for name in vgg.model.state_dict() if not name.startswith(NEW)} == expected
    plain = set(without_weights("inception_v3", levels_used=4).model.state_dict())
    assert {name for name in inception.model.state_dict() if not name.startswith(NEW)} == plain


def test_without_the_new_stage_vgg16_computes_what_timm_does_until_the_third_pooling(vgg):
    plain, image = without_weights("vgg16", levels_used=3).eval(), torch.rand(1, 3, 32, 32)
    plain.model.load_state_dict(vgg.model.state_dict(), strict=False, assign=True)
    with torch.no_grad():
        for one, two in zip(vgg(image).levels, plain(image).levels, strict=False):
            torch.testing.assert_close(one, two)


@pytest.mark.slow
def test_the_reduction_of_inception_keeps_the_size_and_joins_three_branches():
    backbone = Backbone("inception_v3", output_stride=8, levels_used=4).eval()
    mixed, features = backbone.model.Mixed_6a, torch.rand(1, 288, 6, 6)
    with torch.no_grad():
        found = mixed(features)
        pooled = nn.functional.max_pool2d(features, 3, stride=1, padding=1)
    assert found.shape == (1, 768, 6, 6)
    assert torch.equal(found[:, -288:], pooled)
    assert shapes_of(backbone, 64)[-1] == (768, 8)
    assert not [name for name, _ in backbone.named_parameters() if name.startswith(f"model.{NEW}")]
    assert not backbone.has_new_stage


@pytest.mark.slow
def test_weights_without_the_new_stage_load_and_others_do_not(vgg, tmp_path):
    state = {name: torch.ones_like(t) for name, t in vgg.model.state_dict().items() if not name.startswith(NEW)}
    torch.save(state, tmp_path / "vgg.pt")
    fresh = Backbone("vgg16", output_stride=8)
    before = fresh.model.new_stage[0].weight.clone()
    load_backbone_weights(fresh, str(tmp_path / "vgg.pt"))
    assert torch.equal(fresh.model.features[28].weight, torch.ones(512, 512, 3, 3))
    assert torch.equal(fresh.model.new_stage[0].weight, before)
    del state["features.0.weight"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(WeightsError, match=r"1 of 28 layers are missing: features\.0\.weight"):
        load_backbone_weights(fresh, str(tmp_path / "less.pt"))


def test_the_last_stage_learns_faster(vgg):
    late, _ = late_parameters(vgg)
    names = {id(parameter): name for name, parameter in vgg.named_parameters()}
    found = {names[id(parameter)].removeprefix("model.").rsplit(".", 1)[0] for parameter in late}
    assert found == {*(f"features.{i}" for i in (17, 19, 21, 24, 26, 28)), f"{NEW}.0"}


def test_a_decoder_climbs_them_back(vgg):
    with torch.no_grad():
        levels = vgg(torch.rand(1, 3, 32, 32)).levels
        assert UnetDecoder(vgg.level_channels, channels=(8, 8, 8, 8))(levels, (32, 32)).shape == (1, 2, 32, 32)


def test_at_another_stride_they_are_timms_own():
    assert without_weights("inception_v3", levels_used=5).level_channels == (64, 192, 288, 768, 2048)


@pytest.mark.slow
@pytest.mark.real
def test_imagenet_weights_of_inception_load_into_the_published_form(shared_data, inception):
    path = str(shared_data / "weights" / "inception_v3_tf_stem-Mixed_7a_fp16.safetensors")
    backbone = Backbone("inception_v3.tf_in1k", output_stride=8)
    load_backbone_weights(backbone, path)
    assert backbone.mean == (0.5, 0.5, 0.5)
    assert not torch.equal(
        backbone.model.Mixed_6a.branch3x3.conv.weight, inception.model.Mixed_6a.branch3x3.conv.weight
    )
