"""``tcam predict -o boxes/``: a table per video, whole or not there, and what is done is skipped."""

import json
import shutil

import pytest

from pipelines.inference.box_table import read_boxes
from tests.helpers.synthetic import TINY_FRAMES
from tests.helpers.tiny import files_of, read_errors, spoil


@pytest.fixture
def predict(tcam, tiny_run, tmp_path):
    sources = shutil.copytree(tiny_run.videos / "fish", tmp_path / "sources")

    def call(*options, output=None):
        output = f"{tmp_path / 'boxes'}/" if output is None else output
        options = ("--device", "cpu", "--workers", "0", *options)
        return tcam("predict", tiny_run.folder, "--source", sources, "-o", output, *options)

    call.sources, call.boxes = sources, tmp_path / "boxes"
    return call


def test_every_video_has_its_table(predict):
    found = predict()
    assert (found.code, found.out) == (0, "")
    names = [f"fish-{number:02d}.mp4.csv" for number in range(4)]
    assert sorted(files_of(predict.boxes)) == sorted([*names, *(f"{name}.meta.json" for name in names)])
    for name in names:
        table = read_boxes(predict.boxes / name)
        assert set(table["video"]) == {name.removesuffix(".csv")}
        assert len(table) == TINY_FRAMES
        assert json.loads((predict.boxes / f"{name}.meta.json").read_text())["rows"] == TINY_FRAMES


def test_a_rerun_does_what_is_new_or_changed_and_says_so(predict):
    predict()
    before = {path: path.stat().st_mtime_ns for path in predict.boxes.glob("*.csv")}
    found = predict()
    assert found.code == 0
    assert "4 of 4 videos are done already and skipped" in found.err
    shutil.copy(predict.sources / "fish-00.mp4", predict.sources / "fish-03.mp4")
    shutil.copy(predict.sources / "fish-00.mp4", predict.sources / "new.mp4")
    (predict.boxes / "fish-01.mp4.csv").unlink()
    found = predict()
    assert "2 of 5 videos are done already and skipped" in found.err
    after = {path: path.stat().st_mtime_ns for path in predict.boxes.glob("*.csv")}
    changed = {path.name.removesuffix(".mp4.csv") for path in after if after[path] != before.get(path)}
    assert changed == {"fish-01", "fish-03", "new"}


@pytest.mark.slow
def test_other_settings_are_other_work(predict):
    predict()
    assert "skipped" not in predict("--threshold", "0.35").err  # not on the grid of thresholds
    assert "4 of 4 videos are done already" in predict("--threshold", "0.35").err
    assert "skipped" not in predict("--threshold", "0.35", "--class", "fish").err


def test_a_table_whose_writing_was_cut_off_is_made_again(predict):
    whole = (predict(), files_of(predict.boxes))[1]
    (predict.boxes / "fish-02.mp4.csv.meta.json").unlink()
    table = predict.boxes / "fish-02.mp4.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:2]) + "\n")
    assert "3 of 4 videos are done already" in predict().err
    assert files_of(predict.boxes) == whole


@pytest.mark.slow
def test_broken_videos_are_rows_and_tried_again(predict):
    spoilt = {name.removeprefix("sources/") for name in spoil(predict.sources).values()}
    assert predict().code == 4
    assert set(read_errors(predict.boxes / "errors.csv")) == spoilt
    for name in spoilt:
        (predict.sources / name).unlink()
    found = predict()
    assert found.code == 0
    assert not (predict.boxes / "errors.csv").exists()


def test_leftovers_of_killed_runs_are_swept(predict, tmp_path):
    predict.boxes.mkdir()
    for folder in (predict.boxes, tmp_path):
        (folder / ".boxes.csv.999999999.part").touch()
        (folder / ".other.csv.999999999.part").touch()
    (tmp_path / ".boxes.csv.meta.json.999999999.tmp").touch()
    predict()
    assert not list(predict.boxes.glob(".*"))
    predict(output=tmp_path / "boxes.csv")
    assert [path.name for path in tmp_path.glob(".*")] == [".other.csv.999999999.part"]
