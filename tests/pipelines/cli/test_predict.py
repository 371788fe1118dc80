import csv
import json
import os
import shutil
import sys
from contextlib import suppress

import pytest

from pipelines.inference.box_table import read_boxes
from tests.helpers.synthetic import TINY_FRAMES
from tests.helpers.tiny import files_of, read_errors, spoil


def test_a_video_gives_a_row_per_frame(tcam, tiny_run, tmp_path):
    source, target = tiny_run.videos / "fish" / "fish-03.mp4", tmp_path / "out" / "boxes.csv"
    found = tcam("predict", tiny_run.folder, "--source", source, "-o", target, "--class", "fish", "--device", "cpu")
    assert (found.code, found.out) == (0, "")
    table = read_boxes(target)
    assert table["frame"].tolist() == list(range(TINY_FRAMES))
    assert set(table["video"]) == {"fish-03.mp4"}
    assert set(table["class"]) == {"fish"}
    about = json.loads((tmp_path / "out" / "boxes.csv.meta.json").read_text())
    assert (about["run"], about["method"], about["rows"]) == ("tiny-001", "tcam", TINY_FRAMES)
    assert not (tmp_path / "out" / "errors.csv").exists()


def test_rows_go_to_stdout_and_nothing_else_does(tcam, tiny_run):
    source = tiny_run.videos / "*" / "*-03.mp4"
    found = tcam("predict", tiny_run.folder, "--source", source, "--device", "cpu", "--threshold", "0.3", "-q")
    assert (found.code, found.err) == (0, "")
    rows = [json.loads(line) for line in found.out.splitlines()]
    assert len(rows) == 2 * TINY_FRAMES
    assert {row["threshold"] for row in rows} == {0.3}
    assert {row["video"] for row in rows} == {"beetle/beetle-03.mp4", "fish/fish-03.mp4"}


def test_broken_videos_are_listed_and_the_others_predicted(tcam, tiny_run, tmp_path):
    shutil.copytree(tiny_run.videos / "fish", tmp_path / "fish")
    spoilt = {name.removeprefix("fish/") for name in spoil(tmp_path / "fish").values()}
    found = tcam(
        "predict", tiny_run.folder, "--source", tmp_path / "fish", "-o", tmp_path / "b.parquet", "--device", "cpu",
        "--save-video", tmp_path / "drawn",
    )  # fmt: skip
    assert found.code == 4
    errors = read_errors(tmp_path / "errors.csv")
    assert set(errors) == spoilt
    assert "4 of 8 videos failed, listed in" in " ".join(found.err.split())
    table = read_boxes(tmp_path / "b.parquet")
    assert set(table["video"]) == {f"fish-{n:02d}.mp4" for n in range(4)}
    assert len(table) == 4 * TINY_FRAMES
    assert sorted(files_of(tmp_path / "drawn")) == [f"fish-{n:02d}.mp4" for n in range(4)]


def test_a_run_folder_that_is_not_there(tcam, tiny_run, tmp_path):
    found = tcam("predict", tiny_run.home / "runs" / "tiny-999", "--source", tiny_run.videos)
    assert found.code == 3
    assert "expected a run folder at" in found.error
    assert "runs there: " in found.error
    assert "tiny-001" in found.error


def test_a_source_that_is_not_there(tcam, tiny_run):
    found = tcam("predict", tiny_run.folder, "--source", "absent-*.mp4")
    assert found.code == 3
    assert found.error == (
        "--source absent-*.mp4: expected a video file, a folder of videos or a glob, found no such file or match"
    )


def test_a_class_the_run_does_not_know(tcam, tiny_run):
    found = tcam("predict", tiny_run.folder, "--source", tiny_run.videos, "--class", "whale", "--device", "cpu")
    assert found.code == 2
    assert found.error == "--class whale: the run knows beetle, fish"


@pytest.mark.parametrize("name", ["boxes.txt", "boxes"])
def test_a_table_of_unknown_format(tcam, tiny_run, tmp_path, name):
    found = tcam("predict", tiny_run.folder, "--source", tiny_run.videos, "-o", tmp_path / name, "--device", "cpu")
    assert found.code == 2
    assert "expected a name that ends in .csv, .jsonl, .parquet (or - for JSON Lines" in found.error
    assert not any(tmp_path.glob("boxes*"))


def test_a_table_that_cannot_be_written(tcam, tiny_run, tmp_path):
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "boxes.csv"
    found = tcam("predict", tiny_run.folder, "--source", tiny_run.videos, "-o", target, "--device", "cpu")
    assert found.code == 3
    assert "cannot write" in found.error


@pytest.mark.parametrize("flags", [[], ["--source", "x", "--threshold", "1.5"], ["--source", "x", "--batch", "0"]])
def test_wrong_flags_are_usage_errors(tcam, tiny_run, flags):
    found = tcam("predict", tiny_run.folder, *flags)
    assert found.code == 2
    assert found.out == ""
    assert "Usage: tcam predict" in found.err


def test_a_run_that_never_finished(tcam, tiny_run, tmp_path):
    shutil.copytree(tiny_run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    found = tcam("predict", tmp_path / "run", "--source", tiny_run.videos, "--device", "cpu")
    assert found.code == 3
    assert "resume the run" in found.error


def test_a_reader_that_goes_away_is_no_error(tcam, tiny_run, monkeypatch, capsys):
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    with capsys.disabled():
        monkeypatch.setattr(sys, "stderr", sys.stderr)
        monkeypatch.setattr(sys, "stdout", stream)
        found = tcam("predict", tiny_run.folder, "--source", tiny_run.videos, "--device", "cpu", "-q")
    with suppress(BrokenPipeError):
        stream.close()
    assert found.code == 0


def test_an_evaluation_gives_the_table_as_json(tcam, tiny_run, tmp_path):
    found = tcam(
        "evaluate", tiny_run.folder, "--videos", tiny_run.videos, "-o", tmp_path / "out", "--json", "--device", "cpu"
    )
    assert found.code == 0
    rows = json.loads(found.out)
    assert [row["method"] for row in rows] == ["centre box (50 %)", "full frame", *("layercam", "tcam") * 3]
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


def test_an_evaluation_under_the_benchmarks_protocol_says_so(tcam, tiny_run, tmp_path):
    command = ("evaluate", tiny_run.folder, "--videos", tiny_run.videos, "-o", tmp_path, "--device", "cpu")
    assert tcam(*command, "--protocol", "benchmark").code == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert {row["components"] for row in results["rows"]} == {"largest contour"}
    assert tcam(*command, "--protocol", "mine").code == 2


def test_the_benchmarks_protocol_chooses_its_own_threshold_on_validation(tcam, tiny_run, tmp_path):
    """So on the validation videos themselves the threshold chosen there is the oracle."""
    found = tcam("evaluate", tiny_run.folder, "--split", "val", "--protocol", "benchmark", "-o", tmp_path)
    assert found.code == 0, found.err
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    chosen, oracle = (
        {row["method"]: (row["threshold"], row["macro"]) for row in rows if row["threshold_choice"] == choice}
        for choice in ("validation", "oracle")
    )
    assert chosen == oracle
    assert set(chosen) == {"layercam", "tcam"}


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
