import json
from dataclasses import replace

import pytest

from pipelines.evaluation.results import Evaluation, read_evaluation
from pipelines.report.sections import overlap_chart, size_chart, threshold_charts, training_charts, trajectory_charts
from tests.helpers.results import write_results


@pytest.fixture
def evaluation(tmp_path):
    return read_evaluation(write_results(tmp_path))


def test_threshold_curves_show_each_method_then_each_class_with_the_threshold_in_use(evaluation):
    charts = threshold_charts(evaluation)
    assert [chart.title for chart in charts] == ["Mean over classes", "By class: layercam", "By class: tcam"]
    assert [series.name for series in charts[0].series] == ["layercam", "tcam"]
    assert charts[0].series[1].marks == ((50.0, 65.0),)  # 35 percent at 0.5
    assert [len(series.lines) for series in charts[1].series] == [1, 3]


def test_hundreds_of_classes_have_no_chart(evaluation):
    curve = evaluation.curves["tcam"]
    values = next(iter(curve.per_class.values()))
    many = replace(curve, per_class={f"c{i}": values for i in range(300)})
    charts = threshold_charts(replace(evaluation, curves={"tcam": many}))
    assert [chart.title for chart in charts] == ["Mean over classes"]


def test_the_histogram_counts_every_frame_in_its_bin(evaluation):
    (chart,) = overlap_chart(evaluation)
    assert [series.name for series in chart.series] == ["layercam", "tcam", "centre box (50 %)"]
    tips = {tip.tip.splitlines()[0]: tip.tip for tip in chart.slices}
    assert "tcam: 22.22" in tips["IoU, from 0.6"]  # two of nine
    assert "tcam: 11.11" in tips["IoU, from 0.9"]
    assert "tcam: 11.11" in tips["IoU, from 0.0"]


def test_corloc_is_split_by_the_size_of_the_object(evaluation):
    (chart,) = size_chart(evaluation)
    tips = [tip.tip.splitlines() for tip in chart.slices]
    assert [tick.text for tick in chart.x_ticks] == ["4–10", "25–50"]
    assert tips[0][1:4] == ["5 frames", "layercam: 40", "tcam: 60"]
    assert tips[1][1:4] == ["4 frames", "layercam: 50", "tcam: 75"]


def test_boxes_over_time_are_of_the_worst_median_and_best_video(evaluation):
    items = trajectory_charts(evaluation)
    assert [item["name"] for item in items] == ["dog/rex.mp4", "cat/tom.mp4"]  # dog/bo.mp4 has two frames only
    sides = items[1]["charts"]
    assert [chart.title for chart in sides] == ["left to right", "top to bottom"]
    true_box, found = sides[0].series
    assert true_box.areas == ("0,400 333,350 667,300 1000,250 1000,750 667,800 333,850 0,900",)
    assert found.name == "tcam"
    (gap, _) = items[0]["charts"]
    assert gap.series[1].areas[0].startswith("500,")  # nothing was found in the first frame


def test_training_curves_have_a_chart_per_term_and_count_a_repeated_epoch_once(tmp_path):
    rows = [
        {"stage": "classifier", "epoch": 1, "classes": 2.0, "val_corloc": 10.0},
        {"stage": "classifier", "epoch": 2, "classes": 9.0, "val_corloc": 11.0},
        {"stage": "classifier", "epoch": 2, "classes": 1.0, "val_corloc": 12.0},
        {"stage": "localizer", "epoch": 1, "crf": float("nan")},
    ]
    log = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(log + '{"stage": "localizer", "epo')  # cut off by a crash
    (stage,) = training_charts(tmp_path)
    assert stage["name"] == "classifier"
    assert [(chart.title, chart.y_label) for chart in stage["charts"]] == [("classes", "loss"), ("val_corloc", "%")]
    assert [tip.tip for tip in stage["charts"][0].slices] == ["epoch 1\nclasses: 2", "epoch 2\nclasses: 1"]


def test_rounds_of_the_localizer_are_lines_of_one_chart(tmp_path):
    rows = [
        {"stage": stage, "epoch": epoch, "soft": value, "val_corloc": 50.0}
        for stage, value in (("classifier", 2.0), ("localizer-2", 0.3), ("localizer-10", 0.25), ("localizer", 0.2))
        for epoch in (2, 1)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    classifier, rounds = training_charts(tmp_path)
    assert (classifier["name"], rounds["name"]) == ("classifier", "localizer, in rounds")
    assert [series.name for series in classifier["charts"][0].series] == ["soft"]
    assert [chart.title for chart in rounds["charts"]] == ["soft", "val_corloc"]
    assert [series.name for series in rounds["charts"][0].series] == ["round 2", "round 10", "last round"]
    assert rounds["charts"][0].slices[0].tip == "epoch 1\nround 2: 0.3\nround 10: 0.25\nlast round: 0.2"


def test_without_frames_curves_or_log_there_are_no_charts(evaluation, tmp_path):
    for bare in (Evaluation("test", (), ()), replace(evaluation, frames=None, curves={})):
        assert [*threshold_charts(bare), *overlap_chart(bare), *size_chart(bare), *trajectory_charts(bare)] == []
    assert training_charts(tmp_path / "nowhere") == []


def test_a_method_that_found_nothing_at_all_can_be_drawn(tmp_path):
    nothing = {"tcam": {"cat/tom.mp4": [0.0, 0.0, 0.0]}}
    (item,) = trajectory_charts(read_evaluation(write_results(tmp_path / "x", nothing)))
    assert item["charts"][0].series[1].areas == ()
