import pytest
import torch

from tcam.errors import ConfigError
from tcam.model.backbone import Backbone
from tcam.model.catalogue import USUAL, BackboneFacts, describe_backbone, list_backbones


def test_facts_are_those_of_the_network():
    network = Backbone("test_resnet", output_stride=8)
    assert describe_backbone("test_resnet") == BackboneFacts(
        name="test_resnet",
        output_stride=8,
        stride=8,
        level_channels=network.level_channels,
        channels=network.last_channels,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        attends=False,
    )


def test_nothing_is_drawn_or_kept():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    describe_backbone("test_resnet")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.zeros(1).device.type == "cpu"


def test_a_transformer_has_the_stride_of_its_patches_and_attention():
    facts = describe_backbone("test_vit")
    assert (facts.output_stride, facts.stride, facts.channels, facts.attends) == (None, 16, 64, True)


def test_a_network_that_cannot_serve_has_no_facts_and_is_not_listed():
    assert describe_backbone("test_vit_relpos") is None
    assert [facts.name for facts in list_backbones(["test_vit_rel*", "test_res*", "test_resnet"])] == ["test_resnet"]


def test_a_pattern_without_a_network_is_a_config_error():
    with pytest.raises(ConfigError, match=r"timm has no model 'nonet\*': expected a name or a pattern"):
        list(list_backbones(["nonet*"]))
    with pytest.raises(ConfigError, match=r"none of the 1 models 'test_vit_relpos' can serve"):
        list(list_backbones(["test_vit_relpos"]))


@pytest.mark.slow
def test_the_usual_ones_all_work():
    listed = list(list_backbones([]))
    assert tuple(facts.name for facts in listed) == USUAL
    known = {facts.name: (facts.stride, facts.channels, round(facts.parameters / 1e6, 1)) for facts in listed}
    assert known["resnet50"] == (8, 2048, 23.5)
    assert known["vgg16"] == (8, 1024, 19.4)
    assert known["vit_small_patch14_dinov2.lvd142m"] == (14, 384, 22.1)
