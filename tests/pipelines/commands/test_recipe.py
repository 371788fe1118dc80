"""Which settings a training starts from when the user names none."""

import json
import shutil

import pytest

from pipelines.commands import recipe
from pipelines.commands.recipe import choose_recipe
from pipelines.config.schema import load_config
from pipelines.config.shipped import configs_folder
from tcam.errors import DataError
from tests.helpers.tiny import set_flags
from tests.helpers.youtube_objects_tree import read_lists, write_small_lists, write_v1

LEVELS = (
    *("input.resize=64", "model.decoder=levels", "classifier.freeze_backbone=true", "cam.method=cam"),
    *("cam.refine=joint", "localizer.seeds.weight=0", "localizer.soft.weight=1", "localizer.temporal.neighbours=0"),
)
SMALL = configs_folder() / "real" / "tcam-small.yaml"


def test_few_tagged_videos_take_the_small_recipe_and_say_so(tiny_videos, capsys):
    assert choose_recipe(tiny_videos, ["seed=3", "model.weights=file", "data.workers=0"]) == SMALL
    said = " ".join(capsys.readouterr().err.split())
    assert "recipe: small, configs/real/tcam-small.yaml (4 training videos, at most 500)" in said


@pytest.mark.parametrize("override", ["method=tcam", "model.backbone=resnet18", "localizer.epochs=3", "input.crop=64"])
def test_a_setting_of_method_or_network_asks_for_the_published_settings(tiny_videos, override, capsys):
    assert choose_recipe(tiny_videos, ["seed=3", override]) is None
    assert capsys.readouterr().err == ""


def test_many_videos_take_the_published_settings(tiny_videos, monkeypatch, capsys):
    monkeypatch.setattr(recipe, "MOST_SMALL", 3)
    assert choose_recipe(tiny_videos, []) is None
    assert "recipe: large, the published settings (4 training videos, above 3)" in capsys.readouterr().err


def test_youtube_objects_takes_the_published_settings(tmp_path, capsys):
    write_v1(read_lists(write_small_lists(tmp_path / "lists", "v1.0")), tmp_path / "v1", frames=4)
    assert choose_recipe(tmp_path / "v1", []) is None
    assert "a data set of the papers" in capsys.readouterr().err


def test_a_folder_without_videos_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no videos"):
        choose_recipe(tmp_path, [])


def test_the_small_recipe_computes_the_features_of_a_frame_once():
    config = load_config(SMALL)
    assert config.keeps_features
    assert (config.cam.method, config.cam.refine, config.localizer.rounds) == ("prior", "joint", 3)


def test_the_command_takes_the_recipe_and_names_weights_that_do_not_fit(tcam, tiny_videos, tmp_path):
    weights = tmp_path / "other.pt"
    weights.write_bytes(b"no weights")
    found = tcam("train", "--videos", tiny_videos, "--weights", weights, "--runs", tmp_path / "runs")
    assert found.code == 5
    assert "recipe: small" in found.err
    assert str(weights) in found.error
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.real
def test_tagged_videos_become_boxes_with_two_flags(tcam, tiny_videos, shared_data, tmp_path, monkeypatch):
    # The real network; fewer and smaller frames than the recipe's, or this would take minutes.
    text = SMALL.read_text().replace("resize: 320, crop: 320", "resize: 96, crop: 96")
    text = text.replace("epochs: 8", "epochs: 1").replace("epochs: 6", "epochs: 1").replace("rounds: 3", "rounds: 2")
    (tmp_path / "configs" / "real").mkdir(parents=True)
    (tmp_path / "configs" / "real" / "tcam-small.yaml").write_text(text)
    monkeypatch.setattr(recipe, "configs_folder", lambda: tmp_path / "configs")
    weights = shared_data / "weights" / "tf_efficientnet_lite2_fp16.safetensors"
    found = tcam("train", "--videos", tiny_videos, "--weights", weights, "--runs", tmp_path / "runs", "--name", "x")
    assert found.code == 0, found.err
    run = tmp_path / "runs" / "x-001"
    stored = json.loads((run / "evaluation" / "thresholds.json").read_text())
    assert set(stored["thresholds"]) == {"prior", "tcam"}
    rows = json.loads((run / "evaluation" / "results.json").read_text())["rows"]
    assert {"validation", "tags"} <= {row["threshold_choice"] for row in rows}
    found = tcam("predict", run, "--source", tiny_videos / "fish" / "fish-03.mp4", "-o", tmp_path / "boxes.csv")
    assert found.code == 0, found.err


@pytest.mark.slow
def test_without_any_box_the_boxes_are_those_of_the_row_tags(tcam, tiny_videos, tmp_path):
    """Hide the boxes: training, threshold and prediction must not change."""

    hidden = shutil.copytree(tiny_videos, tmp_path / "hidden")
    (hidden / "boxes.csv").unlink()
    tables = {}
    for name, videos in (("with", tiny_videos), ("without", hidden)):
        settings = ("--set", "evaluation.selection=tags", *set_flags(), *set_flags(LEVELS))
        runs = ("--runs", tmp_path / name, "--name", "x")
        found = tcam("train", "--videos", videos, *runs, *settings)
        assert found.code == 0, found.err
        run = tmp_path / name / "x-001"
        stored = json.loads((run / "evaluation" / "thresholds.json").read_text())
        assert stored["chosen_on"] == "tags"
        source = tiny_videos / "fish" / "fish-03.mp4"
        assert tcam("predict", run, "--source", source, "-o", tmp_path / f"{name}.csv").code == 0
        tables[name] = (stored["thresholds"], (tmp_path / f"{name}.csv").read_text())
    assert tables["with"] == tables["without"]


def test_the_flag_of_the_selection_leaves_the_recipe_open_and_is_checked(tcam, tiny_videos, tmp_path):
    found = tcam("train", "--videos", tiny_videos, "--selection", "boxes", "--runs", tmp_path / "runs")
    assert found.code == 2
    assert "'evaluation.selection' in" in found.error
    assert "input should be 'auto', 'tags' or 'default', found 'boxes'" in found.error
    assert "recipe: small" in found.err
