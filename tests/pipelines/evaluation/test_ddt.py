"""The unsupervised baseline, and refined maps, in evaluation and prediction."""

import json
import shutil
import sys

import pytest
import torch

from pipelines.evaluation.ddt import DDT, VideoDdt, basis_of
from pipelines.evaluation.metrics import list_metrics
from pipelines.evaluation.score import results_table, score_videos
from pipelines.parallel.placement import AUTO, Placement
from tcam.types import FrameTruth
from tcam.video.dataset import stream_original
from tests.helpers.tiny import SIDE, files_of, tiny_config, tiny_localizer


def score(data, truth=None, *, placement=AUTO, batch=8, chosen=None):
    localizer = tiny_localizer()
    return score_videos(
        {"layercam": localizer},
        data.index,
        data.index.records,
        data.truth if truth is None else truth,
        settings=tiny_config(f"evaluation.batch={batch}").evaluation,
        size=(SIDE, SIDE),
        placement=placement,
        chosen=chosen,
        ddt=localizer,
    )


def test_the_basis_is_spread_over_the_frames():
    assert basis_of([3, 5, 9]) == (3, 5, 9)
    assert basis_of(range(0, 320, 10)) == tuple(range(10, 320, 20))


def test_the_floor_stands_beside_the_others_without_a_threshold(tiny_data):
    scored = score(tiny_data, chosen={"layercam": 0.5})
    rows = results_table(scored, {"layercam": 0.5})
    assert [name for name, _ in rows[:3]] == ["centre box (50 %)", "full frame", DDT]
    assert rows[2][1].protocol.threshold_choice == "none"
    assert rows[2][1].num_frames == len(tiny_data.truth)
    assert scored.best_thresholds().keys() == {"layercam"}
    figures = {(metric.method, metric.name): metric for metric in list_metrics(scored.methods, "validation")}
    assert 0 <= figures[DDT, "MaxBoxAccV2"].value <= 100
    assert (DDT, "Top-1 localization") not in figures


@pytest.mark.slow
def test_its_figures_depend_neither_on_the_batch_nor_on_where_the_work_is_done(tiny_data):
    tables = [
        score(tiny_data, batch=batch, placement=placement).evaluators[DDT].table("none", 0.0).as_dict()
        for batch, placement in ((8, Placement(0)), (8, Placement(2)), (3, Placement(0)))
    ]
    assert tables[0] == tables[1] == tables[2]


def test_its_boxes_lie_in_original_pixels_and_in_the_frame(tiny_data):
    record = tiny_data.index.records[0]
    ddt = VideoDdt.of_video(tiny_localizer(), record, (0, 4), batch=1, size=(32, 32))
    frames = torch.stack([torch.from_numpy(frame.pixels) for frame in stream_original(record, size=(32, 32))])
    boxes = ddt.boxes(frames)
    assert boxes.shape == (len(frames), 4)
    found = boxes[~boxes[:, 0].isnan()]
    assert len(found)
    assert found.min() >= 0
    assert found[:, 2].max() <= record.size[1]
    assert found[:, 3].max() <= record.size[0]
    assert (found % 2 == 0).all()  # 64 pixels of the video are 32 of the map


def test_a_frame_without_an_object_counts_for_presence_alone(tiny_data):
    truth = [*tiny_data.truth]
    truth[0] = FrameTruth(truth[0].video_id, truth[0].frame_index, truth[0].label, ())
    scored = score(tiny_data, truth, chosen={"layercam": 0.5})
    assert scored.evaluators[DDT].table("none", 0.0).num_frames == len(truth) - 1
    figures = {(metric.method, metric.name): metric.value for metric in list_metrics(scored.methods, "validation")}
    assert figures[DDT, "Presence: false alarms"] in (0.0, 100.0)
    assert figures["full frame", "Presence: false alarms"] == 100.0


@pytest.mark.slow
def test_evaluate_shows_the_floor_and_refined_maps_where_asked(tcam, tiny_run, tmp_path):
    pytest.importorskip("pydensecrf")
    folder = shutil.copytree(tiny_run.folder, tmp_path / "copy-001")
    before = files_of(folder)
    found = tcam("evaluate", folder, "--baseline", "ddt", "--refine", "crf", "--device", "cpu", "--json")
    assert found.code == 0, found.err
    rows = json.loads(found.out)
    names = ["layercam", "tcam", "layercam + crf", "tcam + crf"]
    assert [row["method"] for row in rows] == ["centre box (50 %)", "full frame", DDT, *names * 4]
    assert (folder / "evaluation-test-crf-ddt" / "results.json").is_file()
    after = files_of(folder)
    assert [name for name in before if after[name] != before[name]] == []  # the run's own tables stay
    chosen = json.loads((folder / "evaluation-crf" / "thresholds.json").read_text())["thresholds"]
    assert list(chosen) == ["layercam + crf", "tcam + crf"]
    assert next(row["threshold"] for row in rows if row["method"] == "tcam + crf") == chosen["tcam + crf"]
    video = next(tiny_run.videos.rglob("*.mp4"))
    found = tcam("predict", folder, "--source", video, "-o", tmp_path / "boxes.csv", "--refine", "crf")
    assert found.code == 0, found.err
    assert json.loads((tmp_path / "boxes.csv.meta.json").read_text())["threshold"] == chosen["tcam + crf"]


def test_predict_refines_maps_where_asked(tcam, tiny_run, tmp_path):
    pytest.importorskip("pydensecrf")
    video = next(tiny_run.videos.rglob("*.mp4"))
    tables = {}
    for name, more in (("plain", ()), ("refined", ("--refine", "crf"))):
        found = tcam("predict", tiny_run.folder, "--source", video, "-o", tmp_path / f"{name}.csv", *more)
        assert found.code == 0, found.err
        tables[name] = (tmp_path / f"{name}.csv").read_text()
        about = json.loads((tmp_path / f"{name}.csv.meta.json").read_text())
        assert about["method"] == ("tcam" if name == "plain" else "tcam + crf")
        assert ("map threshold 0.5; 'tcam evaluate" in found.err) == (name == "refined")
    assert about["threshold"] == 0.5
    assert tables["plain"] != tables["refined"]


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_without_pydensecrf_refining_is_refused_with_one_line(command, tcam, tiny_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    more = ("--source", next(tiny_run.videos.rglob("*.mp4"))) if command == "predict" else ()
    found = tcam(command, tiny_run.folder, "--refine", "crf", *more)
    assert found.code == 5
    assert "needs pydensecrf" in found.error
    assert "pip install 'tcam[crf]'" in found.error
