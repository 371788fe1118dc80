import csv
import json
import shutil

import pandas as pd
import pytest
import torch

from tcam.boxes.boxes import iou
from tests.helpers.tiny import files_of, set_walk


def test_an_evaluation_gives_the_table_as_json(tcam, tiny_run, tmp_path):
    found = tcam(
        "evaluate", tiny_run.folder, "--videos", tiny_run.videos, "-o", tmp_path / "out", "--json", "--device", "cpu"
    )
    assert found.code == 0
    rows = json.loads(found.out)
    assert [row["method"] for row in rows] == ["centre box (50 %)", "full frame", *("layercam", "tcam") * 4]
    assert all(row["num_frames"] > 0 for row in rows)
    assert (tmp_path / "out" / "report" / "report.html").is_file()
    assert (tmp_path / "out" / "per_frame.parquet").is_file()
    for part in ("oracle per class", "MaxBoxAccV2", "Classification accuracy"):
        assert part in found.err
    with (
        (tiny_run.folder / "report" / "table.csv").open() as first,
        (tmp_path / "out/report/table.csv").open() as second,
    ):
        assert list(csv.DictReader(first)) == list(csv.DictReader(second))


@pytest.mark.slow
def test_an_evaluation_under_the_benchmarks_protocol_says_so(tcam, tiny_run, tmp_path):
    command = ("evaluate", tiny_run.folder, "--videos", tiny_run.videos, "-o", tmp_path, "--device", "cpu")
    assert tcam(*command, "--protocol", "benchmark").code == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert {row["components"] for row in results["rows"]} == {"largest contour"}
    assert tcam(*command, "--protocol", "mine").code == 2


@pytest.mark.slow
def test_the_benchmarks_protocol_chooses_its_own_threshold_on_validation(tcam, tiny_run, tmp_path):
    """So on the validation videos themselves the threshold chosen there is the oracle."""
    run = shutil.copytree(tiny_run.folder, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("iou_threshold: 0.5", "iou_threshold: 0.1"))  # or all boxes are wrong
    found = tcam("evaluate", run, "--split", "val", "--protocol", "benchmark", "-o", tmp_path / "out")
    assert found.code == 0, found.err
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    chosen, oracle = (
        {row["method"]: (row["threshold"], row["macro"]) for row in rows if row["threshold_choice"] == choice}
        for choice in ("validation", "oracle")
    )
    assert chosen == oracle
    assert set(chosen) == {"layercam", "tcam"}
    assert all(macro > 0 for _, macro in chosen.values())


@pytest.mark.slow
def test_other_videos_may_lack_classes_of_the_run(tcam, tiny_run, videos, tmp_path):
    """Their columns stay empty, and the mean is over the classes that have frames."""
    clips = (videos / "clips.csv").read_text().splitlines()
    only = [row.replace(",test", ",val") if row.startswith("fish") else row for row in clips]
    (videos / "clips.csv").write_text("\n".join(only) + "\n")
    found = tcam("evaluate", tiny_run.folder, "--videos", videos, "-o", tmp_path / "out", "--device", "cpu")
    assert found.code == 0, found.err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["frames_per_class"]["fish"] == results["videos_per_class"]["fish"] == 0
    for row in results["rows"]:
        assert row["per_class"]["fish"] is None
        assert row["macro"] == row["per_class"]["beetle"] == pytest.approx(row["micro"])
    own = [row["thresholds_per_class"] for row in results["rows"] if row["threshold_choice"] == "oracle per class"]
    assert [set(thresholds) for thresholds in own] == [{"beetle"}] * 2


@pytest.mark.slow
def test_evaluating_a_run_on_its_own_videos_makes_its_report_anew(tcam, tiny_run, tmp_path):
    run = tmp_path / "tiny-001"
    shutil.copytree(tiny_run.folder, run)
    (run / "report" / "report.html").unlink()
    found = tcam("evaluate", run, "--device", "cpu")
    assert found.code == 0, found.err
    assert (run / "report" / "table.csv").read_bytes() == (tiny_run.folder / "report" / "table.csv").read_bytes()
    text = (run / "report" / "report.html").read_text()
    assert 'src="overlay.mp4"' in text
    assert 'id="training"' in text
    assert not (run / "evaluation-test").exists()


def test_classes_the_run_does_not_know_cannot_be_evaluated(tcam, tiny_run, videos, tmp_path):
    (videos / "clips.csv").unlink()
    (videos / "boxes.csv").unlink()
    (videos / "fish").rename(videos / "whale")
    found = tcam("evaluate", tiny_run.folder, "--videos", videos, "-o", tmp_path / "out", "--device", "cpu")
    assert found.code == 3
    assert found.error == "the videos hold class 'whale'; the run knows beetle, fish"


def test_videos_without_boxes_cannot_be_evaluated(tcam, tiny_run, videos, tmp_path):
    (videos / "boxes.csv").unlink()
    found = tcam("evaluate", tiny_run.folder, "--videos", videos, "-o", tmp_path / "out", "--device", "cpu")
    assert found.code == 3
    assert "expected boxes to compare with (boxes.csv: video,frame,x0,y0,x1,y1), found none" in found.error


@pytest.mark.slow
def test_a_folder_of_test_videos_alone_can_be_evaluated(tcam, tiny_run, videos, tmp_path):
    rows = (videos / "clips.csv").read_text().splitlines()
    keep = [row for row in rows[1:] if row.endswith(",test")]
    name = keep[0].split(",")[1]
    keep = [row for row in keep if row.split(",")[1] == name]
    kept = {row.split(",")[0] for row in keep}
    for file in list(videos.rglob("*.mp4")):
        if file.relative_to(videos).as_posix() not in kept:
            file.unlink()
    (videos / "clips.csv").write_text("\n".join([rows[0], *keep]) + "\n")
    boxes = (videos / "boxes.csv").read_text().splitlines()
    inside = [row for row in boxes[1:] if row.split(",")[0] in kept]
    (videos / "boxes.csv").write_text("\n".join([boxes[0], *inside]) + "\n")
    found = tcam("evaluate", tiny_run.folder, "--videos", videos, "-o", tmp_path / "out", "--device", "cpu", "--json")
    assert found.code == 0, found.err
    assert {row["num_frames"] for row in json.loads(found.out)} == {len(inside)}


@pytest.mark.slow
def test_predict_gives_the_refined_boxes_that_evaluate_scores(tcam, tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run.folder, tmp_path / "copy-001")
    set_walk(folder, window=2, stride=2)
    before = {name: content for name, content in files_of(folder).items() if "evaluation-joint" not in name}
    found = tcam("evaluate", folder, "--refine", "joint", "--device", "cpu", "--json")
    assert found.code == 0, found.err
    names = ["layercam", "tcam", "layercam + joint", "tcam + joint"]
    assert [row["method"] for row in json.loads(found.out)] == ["centre box (50 %)", "full frame", *names * 4]
    after = files_of(folder)
    assert [name for name in before if after[name] != before[name]] == []  # the run's own tables stay
    chosen = json.loads((folder / "evaluation-joint" / "thresholds.json").read_text())["thresholds"]
    assert list(chosen) == ["layercam + joint", "tcam + joint"]
    table = pd.read_parquet(folder / "evaluation-test-joint" / "per_frame.parquet")
    rows = table[table["method"] == "tcam + joint"]
    assert not rows[["x0", "y0", "x1", "y1"]].equals(table[table["method"] == "tcam"][["x0", "y0", "x1", "y1"]])
    for video, scored in rows.groupby("video"):
        options = ("--refine", "joint", "--class", scored["class"].iloc[0], "--device", "cpu")
        found = tcam("predict", folder, "--source", tiny_run.videos / video, "-o", tmp_path / "b.parquet", *options)
        assert found.code == 0, found.err
        assert json.loads((tmp_path / "b.parquet.meta.json").read_text())["threshold"] == chosen["tcam + joint"]
        boxes = pd.read_parquet(tmp_path / "b.parquet").set_index("frame")
        for _, row in scored.iterrows():
            box = boxes.loc[row["frame"], ["x0", "y0", "x1", "y1"]].tolist()
            assert box == row[["x0", "y0", "x1", "y1"]].tolist()
            true = row[["tx0", "ty0", "tx1", "ty1"]].tolist()
            assert iou(torch.tensor([box]), torch.tensor([true])).item() == pytest.approx(row["iou"])


def test_predict_takes_the_threshold_that_training_chose_for_walked_maps(tcam, tiny_run, tmp_path):
    video = next(tiny_run.videos.rglob("*.mp4"))
    found = tcam("predict", tiny_run.folder, "--source", video, "-o", tmp_path / "b.csv", "--refine", "joint")
    assert found.code == 0, found.err
    about = json.loads((tmp_path / "b.csv.meta.json").read_text())
    stored = json.loads((tiny_run.folder / "evaluation" / "thresholds.json").read_text())
    assert about["method"] == "tcam + joint"
    assert about["threshold"] == stored["tags"]["walked"]["tcam"]["threshold"]
