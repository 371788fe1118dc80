"""A file of one's own adds a method, a data set or a sink, and the command line takes it (docs/examples/add_*.py)."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pipelines.config.methods import METHODS
from pipelines.data.sources import DATASETS
from pipelines.inference.box_table import read_boxes
from pipelines.inference.rows import COLUMNS
from pipelines.inference.sinks import SINKS
from tests.helpers.tiny import SETTINGS, set_flags

REPO = Path(__file__).parents[2]
EXAMPLES = REPO / "docs" / "examples"


@pytest.fixture
def add():
    """Return a function that runs an example for the row it adds; the tables are restored afterwards."""
    kept = [(table, dict(table)) for table in (METHODS, SINKS, DATASETS)]
    yield lambda name: runpy.run_path(str(EXAMPLES / name))
    for table, rows in kept:
        table.clear()
        table.update(rows)


def test_a_sink_in_one_file_writes_and_reads_what_predict_finds(tcam, tiny_run, tmp_path, add):
    source = tiny_run.videos / "fish" / "fish-03.mp4"
    target = tmp_path / "boxes.tsv"
    common = ("predict", tiny_run.folder, "--source", source, "--device", "cpu", "-q", "-o")
    refused = tcam(*common, target)
    assert refused.code == 2
    assert "expected a name that ends in .csv, .jsonl, .parquet" in refused.err
    add("add_sink.py")
    assert tcam(*common, target).code == 0
    assert tcam(*common, tmp_path / "boxes.csv").code == 0
    pd.testing.assert_frame_equal(read_boxes(target), read_boxes(tmp_path / "boxes.csv"))
    assert target.read_text().splitlines()[0] == "\t".join(COLUMNS)
    assert tcam(*common, target).code == 0  # a table of tcam's own may be made again
    (tmp_path / "mine.tsv").write_text("mine\n")
    assert "was not written by tcam" in tcam(*common, tmp_path / "mine.tsv").err


def test_a_data_set_in_one_file_is_read_from_the_command_line(tcam, tiny_videos, tmp_path, add):
    clips = tmp_path / "clips"
    clips.mkdir()
    lines = []
    for video in sorted(tiny_videos.glob("*/*.mp4")):
        shutil.copy(video, clips)
        lines.append(f"{video.name} {video.parent.name}")
    (clips / "tags.txt").write_text("\n".join(lines))
    assert tcam("data", "check", clips).code == 3  # flat videos without tags that tcam knows
    add("add_dataset.py")
    found = tcam("data", "check", clips, "--json")
    assert found.code == 0, found.err
    content = json.loads(found.out)
    videos = {row["class"]: row["videos"] for row in content["classes"]}
    assert videos == {"beetle": 4, "fish": 4, "all": 8}
    assert content["splits"].endswith("tags from tags.txt")
    assert tcam("prepare", clips, "-o", tmp_path / "prepared", "--workers", "0").code == 0
    assert (tmp_path / "prepared" / "index.json").is_file()


@pytest.mark.slow
def test_a_method_in_one_file_trains_and_predicts(tcam, tiny_videos, tmp_path, add):
    train = ("train", "--videos", tiny_videos, "--runs", tmp_path / "runs", "--name", "toy", "--method", "smooth")
    assert tcam(*train, *set_flags(SETTINGS)).code == 2  # not known yet
    add("add_method.py")
    trained = tcam(*train, *set_flags(SETTINGS))
    assert trained.code == 0, trained.err
    rows = [json.loads(line) for line in (tmp_path / "runs/toy-001/metrics.jsonl").read_text().splitlines()]
    assert any("smooth" in str(row) for row in rows if row.get("stage") == "localizer")
    results = json.loads((tmp_path / "runs/toy-001/evaluation/results.json").read_text())
    assert "smooth" in {row["method"] for row in results["rows"]}
    source = tiny_videos / "fish" / "fish-03.mp4"
    predicted = tcam("predict", tmp_path / "runs/toy-001", "--source", source, "-o", tmp_path / "boxes.csv")
    assert predicted.code == 0, predicted.err
    assert len(read_boxes(tmp_path / "boxes.csv")) == 8


@pytest.mark.slow
def test_the_file_of_a_method_is_the_command_that_has_it(tmp_path):
    command = [sys.executable, EXAMPLES / "add_method.py", "train", "--method", "smooth"]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert "expected --videos FOLDER" in done.stderr
