import pytest
import safetensors.torch
import torch

from tcam.errors import ConfigError, MissingPartError, WeightsError
from tcam.model.backbone import Backbone, late_parameters, load_backbone_weights


def _probe(backbone, side=64):
    with torch.no_grad():
        return backbone.eval()(torch.rand(2, 3, side, side))


def test_a_resnet18_gives_five_levels_that_match_its_attributes():
    backbone = Backbone("resnet18")
    pyramid = _probe(backbone)
    assert backbone.level_channels == (64, 64, 128, 256, 512)
    assert backbone.level_reductions == (2, 4, 8, 16, 32)
    assert [tuple(level.shape) for level in pyramid.levels] == [
        (2, channels, 64 // reduction, 64 // reduction)
        for channels, reduction in zip(backbone.level_channels, backbone.level_reductions, strict=True)
    ]
    assert pyramid.last.shape == (2, 512, 2, 2)


@pytest.mark.slow
def test_resnet50_at_stride_8_has_the_published_parameter_count_and_shapes():
    backbone = Backbone("resnet50", output_stride=8)
    assert sum(p.numel() for p in backbone.parameters()) == 23_508_032
    assert backbone.level_reductions == (2, 4, 8, 8, 8)
    assert _probe(backbone).last.shape == (2, 2048, 8, 8)


def test_mobilenet_classifies_from_the_features_after_its_last_convolution():
    backbone = Backbone("mobilenetv2_100", output_stride=16, options={"pad_type": "same"})
    pyramid = _probe(backbone)
    assert backbone.level_channels == (16, 24, 32, 96, 320)
    assert backbone.last_channels == 1280
    assert (backbone.mean, backbone.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert pyramid.last.shape == (2, 1280, 4, 4)


def test_levels_used_cuts_the_network_and_drops_the_layers_behind():
    backbone = Backbone("resnet18", levels_used=4)
    pyramid = _probe(backbone)
    assert backbone.level_channels == (64, 64, 128, 256)
    assert pyramid.last is pyramid.levels[-1]
    assert not [name for name, _ in backbone.named_parameters() if "layer4" in name]


def test_every_parameter_that_is_kept_takes_part_in_the_features():
    backbone = Backbone("mobilenetv3_small_050")  # timm gives it a head convolution behind the features
    pyramid = backbone(torch.rand(2, 3, 64, 64))
    (pyramid.last.sum() + sum(level.sum() for level in pyramid.levels)).backward()
    assert not [name for name, p in backbone.named_parameters() if p.grad is None]


def test_building_leaves_batch_norm_statistics_and_training_mode_untouched():
    backbone = Backbone("test_resnet", levels_used=2)
    assert backbone.training
    assert torch.equal(backbone.model.bn1.running_mean, torch.zeros(32))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet51", {}, r"no model 'resnet51'; close names: .*resnet50"),
        ("test_vit_relpos", {}, "no pyramid of convolutional features"),
        ("vgg11", {"output_stride": 8}, "'vgg11' cannot be built with output_stride=8"),
        ("test_resnet", {"levels_used": 6}, "has 5 feature levels, cannot use the first 6"),
        ("test_resnet", {"options": {"no_such_option": 1}}, "cannot be built with no_such_option=1"),
    ],
)
def test_a_network_that_cannot_serve_is_a_config_error(name, options, message):
    with pytest.raises(ConfigError, match=message):
        Backbone(name, **options)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"frames must be \[N, 3, H, W\], got \[2, 1, 8, 8\]"):
        Backbone("test_resnet", levels_used=2)(torch.zeros(2, 1, 8, 8))


def test_late_parameters_of_a_resnet_are_its_last_stage():
    backbone = Backbone("test_resnet")
    late, early = late_parameters(backbone)
    names = {id(p): name for name, p in backbone.named_parameters()}
    assert {names[id(p)].split(".")[1] for p in late} == {"layer4"}
    assert {id(p) for p in late} | {id(p) for p in early} == set(names)
    assert len(late) + len(early) == len(names)


def test_late_parameters_leave_frozen_parameters_frozen():
    backbone = Backbone("test_resnet", levels_used=2).requires_grad_(False)
    late_parameters(backbone)
    assert not any(p.requires_grad for p in backbone.parameters())


def _saved(backbone, path, *, drop=(), extra=None):
    state = {name: t.clone() for name, t in backbone.model.state_dict().items() if not name.startswith(tuple(drop))}
    state |= extra or {}
    (safetensors.torch.save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    return str(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_survive_a_round_trip_and_a_classifier_is_left_aside(tmp_path, suffix):
    source, target = Backbone("test_resnet", levels_used=3), Backbone("test_resnet", levels_used=3)
    path = _saved(source, tmp_path / f"w{suffix}", extra={"fc.weight": torch.zeros(10, 512)})
    load_backbone_weights(target, path)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_half_precision_and_a_wrapped_state_dict_load_as_float32(tmp_path):
    source, target = Backbone("test_resnet", levels_used=2), Backbone("test_resnet", levels_used=2)
    path = tmp_path / "w.pt"
    torch.save({"epoch": 3, "state_dict": {k: v.half() for k, v in source.model.state_dict().items()}}, path)
    load_backbone_weights(target, str(path))
    assert target.model.conv1[0].weight.dtype == torch.float32
    assert torch.equal(target.model.conv1[0].weight, source.model.conv1[0].weight.half().float())


def test_missing_layers_are_named_and_nothing_is_loaded(tmp_path):
    backbone = Backbone("test_resnet", levels_used=3)
    path = _saved(Backbone("test_resnet", levels_used=3), tmp_path / "w.pt", drop=["layer2"])
    before = backbone.model.conv1[0].weight.clone()
    with pytest.raises(WeightsError, match=r"15 of 40 layers are missing: layer2\.0\.conv1\.weight.*levels_used"):
        load_backbone_weights(backbone, path)
    assert torch.equal(backbone.model.conv1[0].weight, before)


def test_layers_under_an_allowed_prefix_may_be_missing(tmp_path):
    source, backbone = Backbone("test_resnet", levels_used=3), Backbone("test_resnet", levels_used=3)
    path = _saved(source, tmp_path / "w.pt", drop=["layer2"])
    load_backbone_weights(backbone, path, allow_missing=["layer2."])
    assert torch.equal(backbone.model.conv1[0].weight, source.model.conv1[0].weight)


def test_layers_of_another_shape_are_named_even_under_an_allowed_prefix(tmp_path):
    backbone = Backbone("test_resnet", levels_used=2)
    path = _saved(backbone, tmp_path / "w.pt", extra={"conv1.0.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"1 of 25 layers have another shape: conv1\.0\.weight"):
        load_backbone_weights(backbone, path, allow_missing=["conv1"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pt", None, "no weights at '.*none.pt'"),
        ("text.safetensors", b"not weights at all", "cannot read weights from"),
        ("text.pt", b"not weights at all", "cannot read weights from"),
    ],
)
def test_a_file_that_holds_no_weights_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        load_backbone_weights(Backbone("test_resnet", levels_used=2), str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_file_that_holds_a_list_is_named(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="holds a list, expected tensors by layer name"):
        load_backbone_weights(Backbone("test_resnet", levels_used=2), str(tmp_path / "list.pt"))


def test_weights_that_cannot_be_fetched_say_what_to_pass():
    backbone = Backbone("test_resnet", levels_used=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setenv("HF_HOME", "/nonexistent")
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nonexistent")
        with pytest.raises(MissingPartError, match="pass --weights FILE") as caught:
            load_backbone_weights(backbone, "imagenet")
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)


def test_random_weights_change_nothing():
    backbone = Backbone("test_resnet", levels_used=2)
    before = backbone.model.conv1[0].weight.clone()
    load_backbone_weights(backbone, "random")
    assert torch.equal(backbone.model.conv1[0].weight, before)


@pytest.mark.real
@pytest.mark.parametrize("output_stride", [None, 16])
def test_imagenet_mobilenet_weights_load_strictly(shared_data, output_stride):
    backbone = Backbone("mobilenetv2_100", output_stride=output_stride, options={"pad_type": "same"})
    path = str(shared_data / "weights" / "mobilenetv2_100_tf_same_fp16.safetensors")
    load_backbone_weights(backbone, path)
    stored = safetensors.torch.load_file(path)
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(tensor, stored[name].to(tensor.dtype)), name


@pytest.mark.real
def test_imagenet_resnet18_without_its_last_stage_loads_cut_or_by_permission(shared_data):
    path = str(shared_data / "weights" / "resnet18_tv_conv1-layer3_fp16.safetensors")
    load_backbone_weights(Backbone("resnet18", levels_used=4), path)
    load_backbone_weights(Backbone("resnet18"), path, allow_missing=["layer4."])
    with pytest.raises(WeightsError, match="25 of 100 layers are missing: layer4"):
        load_backbone_weights(Backbone("resnet18"), path)


@pytest.mark.real
def test_imagenet_inception_weights_load_where_the_network_is_cut_before_them(shared_data):
    backbone = Backbone("inception_v3.tf_in1k", levels_used=4)
    load_backbone_weights(backbone, str(shared_data / "weights" / "inception_v3_tf_stem-Mixed_7a_fp16.safetensors"))
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
