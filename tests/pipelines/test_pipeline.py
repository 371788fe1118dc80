import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.commands.train import start_or_resume
from pipelines.config.schema import load_config
from pipelines.models.run import Run, load_localizers, load_run, main_localizer
from pipelines.pipeline import check_settings, choose_thresholds, train_run
from pipelines.run.lock import locked
from tcam.errors import ConfigError, DataError, WeightsError
from tcam.types import Box, VideoIndex
from tests.helpers.scored import undecided
from tests.helpers.tiny import CPU, SETTINGS, files_of, record, set_flags, tiny_config

STAGES = ("classifier", "cams", "localizer")


@pytest.fixture
def private_run(tiny_run, tmp_path):
    """A copy of the tiny run that a test may spoil."""
    return shutil.copytree(tiny_run.folder, tmp_path / "copy-001")


def stages_trained(folder) -> list[str]:
    return [json.loads(line)["stage"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_every_stage_and_its_tables(tiny_run):
    names = set(files_of(tiny_run.folder))
    assert {
        "config.yaml",
        "env.json",
        "metrics.jsonl",
        "index/index.json",
        "index/truth.csv",
        "index/errors.csv",
        "classifier/best_localization.safetensors",
        "classifier/best_classification.safetensors",
        "localizer/best_localization.safetensors",
        "cams/header.json",
        "evaluation/thresholds.json",
        "evaluation/results.json",
        "evaluation/per_frame.parquet",
        "report/report.html",
        "report/table.csv",
    } <= names
    assert {f"{stage}/stage.json" for stage in STAGES} <= names
    assert not [name for name in names if name.endswith((".tmp", ".part"))]
    assert stages_trained(tiny_run.folder) == ["classifier", "localizer"]
    assert (tiny_run.folder / "index" / "errors.csv").read_text() == "video,reason\n"


def test_the_table_holds_floors_both_methods_and_their_oracles(tiny_run):
    with (tiny_run.folder / "report" / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["method"] for row in rows] == [
        "centre box (50 %)",
        "full frame",
        *("layercam", "tcam") * 4,
    ]


def thresholds_of(tags):
    return {name: found["threshold"] for name, found in tags["by_localizer"].items()}


def test_thresholds_come_from_the_validation_boxes(tiny_run):
    stored = json.loads((tiny_run.folder / "evaluation" / "thresholds.json").read_text())
    assert stored["chosen_on"] == "validation"
    assert set(stored["thresholds"]) == {"layercam", "tcam"}
    run = load_run(tiny_run.folder, device="cpu")
    val = {item.video_id for item in run.index.of_split("val")}
    only_val = dataclasses.replace(run, truth=tuple(item for item in run.truth if item.video_id in val))
    chosen = choose_thresholds(only_val, load_localizers(run))
    assert (chosen.thresholds, chosen.chosen_on) == (stored["thresholds"], "validation")
    assert chosen.others == stored["others"] == {"tags": thresholds_of(stored["tags"])}


def test_without_validation_boxes_tags_choose_the_thresholds(tiny_run):
    run = load_run(tiny_run.folder, device="cpu")
    stored = json.loads((tiny_run.folder / "evaluation" / "thresholds.json").read_text())
    chosen = choose_thresholds(dataclasses.replace(run, truth=()), load_localizers(run))
    assert (chosen.thresholds, chosen.chosen_on) == (thresholds_of(stored["tags"]), "tags")


def test_tags_or_a_fixed_number_can_be_asked_for(tiny_run):
    run, answers = load_run(tiny_run.folder, device="cpu"), []
    for selection in ("tags", "default"):
        settings = run.config.evaluation.model_copy(update={"selection": selection})
        config = run.config.model_copy(update={"evaluation": settings})
        answers.append(choose_thresholds(dataclasses.replace(run, config=config), load_localizers(run)))
    assert [answer.chosen_on for answer in answers] == ["tags", "default"]
    assert answers[1].thresholds == {"layercam": 0.5, "tcam": 0.5}


@pytest.mark.slow
def test_the_localizer_stands_on_the_best_classifier(private_run, tiny_run):
    folder = private_run / "classifier"
    best = load_file(folder / "best_classification.safetensors")
    for name in ("best_localization", "last"):
        (folder / f"{name}.safetensors").unlink()
        save_file({name: torch.zeros_like(tensor) for name, tensor in best.items()}, folder / f"{name}.safetensors")
    shutil.rmtree(private_run / "localizer")
    train_run(tiny_run.videos, load_config(private_run / "config.yaml"), private_run, cache_dir=tiny_run.home / "cache")
    localizer = load_file(private_run / "localizer" / "best_localization.safetensors")
    assert all(torch.equal(localizer[name], tensor) for name, tensor in best.items())
    assert any(name.startswith("decoder.") for name in localizer)


@pytest.mark.slow
def test_thresholds_of_refined_maps_do_not_outlive_the_weights(private_run, tiny_run):
    stale = private_run / "evaluation-crf" / "thresholds.json"
    stale.parent.mkdir()
    stale.write_text('{"thresholds": {"tcam + crf": 0.9}, "chosen_on": "validation"}')
    shutil.rmtree(private_run / "localizer")
    train_run(tiny_run.videos, load_config(private_run / "config.yaml"), private_run, cache_dir=tiny_run.home / "cache")
    assert not stale.exists()


@pytest.mark.slow
def test_a_second_run_takes_the_stages_of_the_first(tiny_run, train_beside, capsys):
    folder = train_beside("second")
    text = " ".join(capsys.readouterr().err.split())
    for stage in STAGES:
        assert f"{stage}: unchanged, taken from tiny-001" in text
        assert files_of(folder / stage) == files_of(tiny_run.folder / stage)
    assert stages_trained(folder) == []
    assert (folder / "report" / "table.csv").read_bytes() == (tiny_run.folder / "report" / "table.csv").read_bytes()


@pytest.mark.slow
def test_only_what_depends_on_a_change_is_done_again(train_beside):
    folder = train_beside("other-decoder", "localizer.seeds.kernel=5")
    assert stages_trained(folder) == ["localizer"]
    folder = train_beside("only-cam", "method=cam")
    assert stages_trained(folder) == []
    assert not (folder / "localizer").exists()
    assert main_localizer(load_run(folder)) == "layercam"


@pytest.mark.slow
def test_colocam_takes_classifier_and_cams_of_tcam_and_is_a_run_like_any(train_beside, capsys):
    folder = train_beside("sequences", "method=colocam", "localizer.sequence.frames=2")
    text = " ".join(capsys.readouterr().err.split())
    for stage in ("classifier", "cams"):
        assert f"{stage}: unchanged, taken from " in text
    assert stages_trained(folder) == ["localizer"]
    run = load_run(folder, device="cpu")
    assert main_localizer(run) == "colocam"
    assert list(load_localizers(run)) == ["layercam", "colocam"]
    assert (folder / "report" / "overlay.mp4").is_file()
    rows = json.loads((folder / "evaluation" / "results.json").read_text())["rows"]
    assert [row["method"] for row in rows][2:] == ["layercam", "colocam"] * 4


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(tiny_run, monkeypatch):
    monkeypatch.setenv("TCAM_HOME", str(tiny_run.home))
    before = files_of(tiny_run.folder)
    result = start_or_resume(None, resume=tiny_run.folder, runs=tiny_run.home / "unused", quiet=True)
    assert (result.folder, result.failures) == (tiny_run.folder, 0)
    after = files_of(tiny_run.folder)
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == []


def test_a_run_that_another_process_works_on_is_left_alone(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("TCAM_HOME", str(tiny_run.home))
    folder = shutil.copytree(tiny_run.folder, tmp_path / "copy-001")
    shutil.rmtree(folder / "index")  # the other one has only just begun
    before = files_of(folder).keys() - {".lock"}
    with locked(folder), pytest.raises(DataError, match=r"copy-001 is locked by process \d+ on "):
        start_or_resume(None, resume=folder, runs=tmp_path, quiet=True)
    assert files_of(folder).keys() - {".lock"} == before


def test_another_pooling_gives_every_stage_another_fingerprint():
    index = VideoIndex(("a", "b"), (record("a/x.mp4", 0), record("b/y.mp4", 1, split="val")))

    def fingerprints(*overrides: str) -> list[str]:
        run = Run(Path("/nowhere"), load_config(None, overrides), CPU, index, ())
        return [s.fingerprint for s in (run.classifier_stage(), run.cams_stage(), run.localizer_stage())]

    others = [fingerprints("model.pooling=gap", *extra) for extra in ((), ("model.background=true",))]
    assert len({tuple(found) for found in [fingerprints(), *others]}) == 3
    assert not set(others[0]) & set(fingerprints())


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("cam.method=gradcam++", "model.pooling=lse", "model.background=true"),
        ("cam.method=cam", "model.pooling=wildcat"),
        ("cam.method=smoothgradcam++", "model.pooling=attention"),
    ],
)
def test_cam_and_pooling_of_the_settings_train_predict_and_evaluate(tcam, tiny_videos, tmp_path, overrides):
    found = tcam(
        *("train", "--videos", tiny_videos, "--method", "tcam", "--runs", tmp_path / "runs", "--name", "x"),
        *set_flags((*SETTINGS, *overrides)),
    )
    assert found.code == 0, found.err
    run, method = tmp_path / "runs" / "x-001", overrides[0].removeprefix("cam.method=")
    rows = json.loads((run / "evaluation" / "results.json").read_text())["rows"]
    assert [row["method"] for row in rows][2:] == [method, "tcam"] * 4
    assert json.loads((run / "cams" / "header.json").read_text())["method"] == method
    assert list(load_localizers(load_run(run, device="cpu"))) == [method, "tcam"]


@pytest.mark.slow
def test_a_cam_run_predicts_with_a_method_that_masks_the_frames(tcam, tiny_videos, tmp_path):
    settings = ("cam.method=scorecam", "evaluation.selection_frames=1", "classifier.freeze_backbone=true")
    found = tcam(
        *("train", "--videos", tiny_videos, "--method", "cam", "--runs", tmp_path / "runs", "--name", "x"),
        *set_flags((*SETTINGS, *settings)),
    )
    assert found.code == 0, found.err
    found = tcam("predict", tmp_path / "runs" / "x-001", "--source", next(tiny_videos.rglob("*.mp4")), "-o", "-")
    assert found.code == 0, found.err
    assert len(found.out.splitlines()) == 8


def test_a_cam_that_does_not_fit_the_pooling_is_refused_before_anything_is_written(tcam, tiny_videos, tmp_path):
    found = tcam(
        "train", "--videos", tiny_videos, "--runs", tmp_path / "runs", *set_flags((*SETTINGS, "model.pooling=max"))
    )
    assert found.code == 2
    assert "cam.method must fit model.pooling (the gradient of a maximum is 0 at all pixels but one" in found.error
    assert not (tmp_path / "runs").exists()


def test_settings_and_seed_decide_the_fingerprints(tiny_run):
    run = load_run(tiny_run.folder, device="cpu")

    def prints(*overrides: str) -> list[str]:
        other = dataclasses.replace(run, config=load_config(run.folder / "config.yaml", overrides))
        return [s.fingerprint for s in (other.classifier_stage(), other.cams_stage(), other.localizer_stage())]

    same = prints()
    harmless = ("device=auto", "data.workers=2", "cam.batch=1", "save_every_s=1")
    assert prints(*harmless, "classifier.workers=4", "localizer.workers=1") == same
    for change, first in (
        ("seed=1", 0),
        ("classifier.lr=0.5", 0),
        ("localizer.lr=0.5", 2),
        ("method=colocam", 2),
        ("model.decoder_channels=[4,4,4]", 2),
    ):
        changed = prints(change)
        assert [one == other for one, other in zip(same, changed, strict=True)] == [i < first for i in range(3)], change


def test_a_joint_term_of_colours_has_the_fingerprint_of_earlier_versions_whatever_is_set_for_features():
    index = VideoIndex(("a", "b"), (record("a/x.mp4", 0), record("b/y.mp4", 1, split="val")))

    def stage_print(*overrides: str) -> str:
        config = load_config(None, ["method=colocam", *overrides])
        return Run(Path("/nowhere"), config, CPU, index, ()).localizer_stage().fingerprint

    features = ("localizer.joint.space=features", "localizer.joint.components=4")
    assert stage_print().startswith("be03fa462e53")  # of the version before joint.space
    assert stage_print(*features[1:], "localizer.joint.sigma_features=1") == stage_print()
    different = {stage_print(*more) for more in ((), features[:1], features, ("localizer.joint.sigma_rgb=9",))}
    assert len(different) == 4


def test_videos_without_boxes_train_too(tiny_run, tmp_path):
    videos = shutil.copytree(tiny_run.videos, tmp_path / "videos")
    (videos / "boxes.csv").unlink()
    folder = tmp_path / "run-001"
    folder.mkdir()
    result = train_run(videos, tiny_config("method=cam"), folder, cache_dir=tmp_path / "cache")
    assert result.rows == []
    assert result.failures == 0
    assert json.loads((folder / "evaluation" / "thresholds.json").read_text())["chosen_on"] == "tags"
    assert (folder / "report" / "report.html").is_file()


def test_a_decoder_that_does_not_fit_is_found_before_anything_runs():
    with pytest.raises(ConfigError, match="decoder_channels must hold a number for each of the backbone's 3 levels"):
        check_settings(tiny_config("model.decoder_channels=[8]"))


def test_a_broken_run_is_said_plainly(private_run):
    run = load_run(private_run, device="cpu")
    (private_run / "localizer" / "best_localization.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"cannot read the weights .*localizer"):
        load_localizers(run)
    shutil.copy(
        private_run / "classifier" / "last.safetensors", private_run / "localizer" / "best_localization.safetensors"
    )
    with pytest.raises(WeightsError, match="made for another network"):
        load_localizers(run)
    (private_run / "index" / "index.json").unlink()
    with pytest.raises(DataError, match="cannot read the index"):
        load_run(private_run)


def test_where_every_validation_box_is_missed_tags_choose_and_not_the_first_threshold(tiny_run, capsys):
    run = load_run(tiny_run.folder, device="cpu")
    corner = tuple(dataclasses.replace(item, boxes=(Box(0, 0, 2, 2),)) for item in run.truth if item.boxes)
    chosen = choose_thresholds(dataclasses.replace(run, truth=corner), load_localizers(run))
    assert (chosen.thresholds, chosen.chosen_on) == (chosen.reasons.thresholds, "validation")
    assert "layercam, tcam: no map threshold finds a validation box, so tags choose it" in capsys.readouterr().err


def test_a_threshold_that_is_a_guess_is_said(tiny_run, capsys):
    run = dataclasses.replace(load_run(tiny_run.folder, device="cpu"), truth=())
    chosen = choose_thresholds(run, {"tcam": undecided()})
    assert chosen.reasons.guesses == ["tcam"]
    said = " ".join(capsys.readouterr().err.split())
    assert "warning: the threshold that tags choose for tcam is a guess: boxes agree no more in the same frame" in said
