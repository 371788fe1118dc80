"""Backbones of other kinds, from the command line: what works, what is refused, and a run on tokens."""

import json

import pytest

from pipelines.models.run import load_localizers, load_run
from pipelines.pipeline import check_settings
from tcam.errors import ConfigError
from tests.helpers.tiny import SETTINGS, set_flags, tiny_config

TOKENS = ("model.backbone=test_vit", "model.output_stride=null", "model.levels_used=null")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cam.method=tscam"], "cam.method=tscam looks at .* class token: model 'test_resnet' has none; take a vision"),
        (["cam.method=clsattention"], "cam.method=clsattention looks at .* model 'test_resnet' has none"),
        (
            [*TOKENS, "cam.method=tscam", "model.backbone_options={class_token: false, global_pool: avg}"],
            "looks at the attention of a class token: model 'test_vit' has none",
        ),
        ([*TOKENS, "input.crop=40"], "input.crop must be a multiple of 16, .* 'test_vit', got 40; set it to 32"),
        (
            ["model.backbone=test_vit", TOKENS[2]],
            "'test_vit' cannot have output_stride 8 .*model.output_stride to null",
        ),
        (
            ["model.backbone=vgg16", TOKENS[2], "classifier.freeze_backbone=true"],
            "freeze_backbone=true would leave the new last stage of 'vgg16' at stride 8 random",
        ),
        ([*TOKENS, "classifier.baseline=adl"], "ADL needs 3 levels .* found 0 in model 'test_vit'"),
        (["model.backbone=test_vit_relpos", *TOKENS[1:]], "gives no pyramid .* 'tcam backbones' lists networks"),
    ],
)
def test_what_a_network_cannot_do_is_found_before_anything_runs(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check_settings(tiny_config(*overrides))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("overrides", [("method=cam", "cam.method=tscam"), (), ("method=colocam", "localizer.batch=4")])
def test_transformers_serve_all_methods(overrides):
    check_settings(tiny_config(*TOKENS, *overrides))


def test_a_refusal_leaves_nothing_behind(tcam, tiny_videos, tmp_path):
    found = tcam(
        *("train", "--videos", tiny_videos, "--runs", tmp_path / "runs"),
        *set_flags((*SETTINGS, "cam.method=tscam")),
    )
    assert found.code == 2
    assert "model 'test_resnet' has none" in found.error
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_run_on_tokens_trains_a_decoder_and_predicts_with_attention(tcam, tiny_videos, tmp_path):
    settings = (*SETTINGS, *TOKENS, "model.pooling=convgap", "cam.method=tscam")
    found = tcam("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", "--name", "x", *set_flags(settings))
    assert found.code == 0, found.err
    run = tmp_path / "runs" / "x-001"
    rows = json.loads((run / "evaluation" / "results.json").read_text())["rows"]
    assert [row["method"] for row in rows][2:] == ["tscam", "tcam"] * 4
    assert list(load_localizers(load_run(run, device="cpu"))) == ["tscam", "tcam"]
    found = tcam("predict", run, "--source", next(tiny_videos.rglob("*.mp4")), "-o", "-")
    assert found.code == 0, found.err
    assert len(found.out.splitlines()) == 8


@pytest.mark.slow
def test_backbones_are_listed_with_what_they_give(tcam):
    found = tcam("backbones", "test_resnet", "test_vit*")
    assert found.code == 0
    titles, *rows = (line.split() for line in found.out.splitlines())
    assert titles == ["model", "output_stride", "stride", "channels", "parameters", "attention"]
    known = {row[0]: row[1:] for row in rows}
    assert known["test_resnet"] == ["8", "8", "96", "0.4", "M", "no"]
    assert known["test_vit"] == ["null", "16", "64", "0.3", "M", "yes"]
    assert "test_vit_relpos" not in known


def test_an_unknown_backbone_is_said_plainly(tcam):
    found = tcam("backbones", "resnet5000")
    assert (found.code, found.out) == (2, "")
    assert "timm has no model 'resnet5000'" in found.error
