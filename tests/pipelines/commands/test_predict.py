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
