"""The ImageNet classifier of pretrained weights: which networks and files have one that can be used."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from tcam.errors import ConfigError, WeightsError
from tcam.model.backbone import Backbone, load_backbone_weights
from tcam.model.imagenet_head import check_imagenet_head, known_classes, read_imagenet_head
from tcam.model.tag_prior import TagPrior


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """All weights of a small network, at random, as a float16 file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_file({name: value.half() for name, value in timm.create_model("test_resnet").state_dict().items()}, path)
    return path


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
@pytest.mark.parametrize("stride", [None, 8])
def test_a_linear_layer_over_the_mean_features_is_taken(name, stride):
    backbone = Backbone(name, output_stride=stride)
    check_imagenet_head(backbone)
    assert known_classes(backbone) == 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv2_100", "resnet18", "densenet121", "regnety_002"])
def test_the_usual_convolutional_networks_are_taken(name):
    check_imagenet_head(Backbone(name))


@pytest.mark.parametrize("name", ["test_convnext", "test_vit", "mobilenetv3_small_050"])
def test_a_network_with_another_classifier_is_refused(name):
    with pytest.raises(
        ConfigError, match=f"linear in the mean .*; that of model '{name}' is not: .*cam.method"
    ) as said:
        check_imagenet_head(Backbone(name))
    assert "\n" not in str(said.value)


def test_a_backbone_with_another_last_level_is_refused():
    with pytest.raises(ConfigError, match="levels_used leaves the last level out: set it to null, or choose another"):
        check_imagenet_head(Backbone("test_resnet", levels_used=3))
    check_imagenet_head(Backbone("test_resnet", levels_used=5))  # all of them


@pytest.mark.slow
def test_a_published_form_with_a_new_stage_is_refused():
    with pytest.raises(ConfigError, match=r"'inception_v3' at stride 8 has a new last stage: set model.output_stride"):
        check_imagenet_head(Backbone("inception_v3", output_stride=8))


def test_the_classifier_is_read_from_a_file(weights):
    weight, bias = read_imagenet_head(Backbone("test_resnet"), str(weights))
    assert (weight.shape, weight.dtype, bias.shape) == ((1000, 96), torch.float16, (1000,))


def test_a_file_without_the_classifier_or_with_another_is_refused(weights, tmp_path):
    from safetensors.torch import load_file

    layers = load_file(weights)
    backbone, file = Backbone("test_resnet"), tmp_path / "part.safetensors"
    save_file({name: value for name, value in layers.items() if not name.startswith("fc.")}, file)
    with pytest.raises(
        WeightsError, match=r"expected fc.weight \[1000, 96\] in weights '.*part.safetensors', found no"
    ):
        read_imagenet_head(backbone, str(file))
    save_file({**layers, "fc.bias": torch.zeros(7)}, file)
    with pytest.raises(WeightsError, match=r"expected fc.bias \[1000\] .*, found \[7\]; give the whole weights of"):
        read_imagenet_head(backbone, str(file))


@pytest.mark.real
@pytest.mark.slow
def test_the_classifier_of_real_weights_gives_the_logits_of_timm(shared_data):
    file = shared_data / "weights" / "tf_efficientnet_lite2_fp16.safetensors"
    backbone = Backbone("tf_efficientnet_lite2").eval()
    load_backbone_weights(backbone, str(file))
    check_imagenet_head(backbone)
    weight, bias = read_imagenet_head(backbone, str(file))
    prior = TagPrior(backbone.last_channels, 1)
    prior.set_classifier(weight, bias)
    from safetensors.torch import load_file

    model = timm.create_model("tf_efficientnet_lite2").eval()
    model.load_state_dict({name: value.float() for name, value in load_file(file).items()})
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, wanted = prior.probabilities(backbone(images).last), model(images).softmax(1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
