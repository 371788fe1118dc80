import csv
import io
import math
from dataclasses import replace

import pytest

from pipelines.evaluation.metrics import Metric
from pipelines.evaluation.results import Score, read_evaluation
from pipelines.report.tables import (
    large_figures,
    markdown_table,
    metric_table,
    percent_cell,
    published_for,
    report_markdown,
    score_lines,
    table_csv,
)
from tests.helpers.results import FLOOR, write_results

CLASSES = ("aeroplane", "bird", "boat", "car", "cat", "cow", "dog", "horse", "motorbike", "train")


@pytest.fixture
def evaluation(tmp_path):
    return read_evaluation(write_results(tmp_path))


def test_the_best_of_a_column_is_marked_but_never_an_oracle_and_never_zero(evaluation):
    method, result = evaluation.scores[3]
    worse = Score(method, replace(result, per_class={"cat": 0.0, "dog": 0.0}, macro=0.0, micro=0.0))
    lines = score_lines(replace(evaluation, scores=(worse, *evaluation.scores)))
    tops = [[cell.top for cell in (*line["cells"], line["macro"], line["micro"])] for line in lines]
    assert [line["name"] for line in lines] == ["tcam", FLOOR, "layercam", "layercam", "tcam", "tcam"]
    assert tops[4] == [True, True, True, True]
    assert not any(map(any, (tops[0], tops[1], tops[2], tops[3], tops[5])))


def test_a_percentage_becomes_text_width_and_shade():
    cell = percent_cell(61.25, 61.25, fair=True)
    assert (cell.text, cell.width, cell.shade, cell.top) == ("61.2", "61.25", 7, True)
    assert percent_cell(math.nan).text == "–"


def test_the_large_figures_are_the_fair_ones_with_their_interval_and_the_best_floor(evaluation):
    figures = large_figures(evaluation)
    assert [(f["name"], f["value"], f["best"]) for f in figures] == [
        ("layercam", "45.0", False),
        ("tcam", "67.5", True),
        (FLOOR, "22.5", False),
    ]
    assert figures[1]["interval"] == "12.5 to 87.5"


def test_other_metrics_have_a_column_per_method_and_no_line_where_none_has_any(evaluation):
    table = metric_table(evaluation)
    assert table["methods"] == ["layercam", "tcam"]
    assert [(line["name"], line["cells"]) for line in table["lines"]] == [
        ("MaxBoxAcc (%)", ["61.2", "61.2"]),
    ]


@pytest.mark.parametrize("name", ["yto_v1", "YTO-v1.0", "youtube-objects_v1"])
def test_published_figures_of_the_first_version_are_those_of_the_paper(name):
    rows = {row["name"]: row for row in published_for(name, CLASSES)["rows"]}
    colocam = rows["CoLo-CAM + LayerCAM"]
    assert " ".join(cell.text for cell in colocam["cells"]) == "90.4 74.0 91.8 87.8 78.7 80.9 89.1 74.1 85.1 68.7"
    assert colocam["macro"].text == "82.1"
    assert rows["TCAM + LayerCAM"]["macro"].text == "73.0"
    assert len(rows) == 26


def test_published_figures_follow_the_order_of_the_classes():
    (first, *_) = published_for("yto_v2.2", ("train", "Aero"))["rows"]
    assert (first["name"], [cell.text for cell in first["cells"]], first["macro"].text) == (
        "Haller 2017",
        ["60.7", "76.3"],
        "54.9",
    )


def test_each_published_mean_is_that_of_its_classes():
    for name, slack in (("yto_v1", 0.6), ("yto_v2.2", 0.6)):
        for row in published_for(name, CLASSES)["rows"]:
            mean = sum(float(cell.value) for cell in row["cells"]) / len(CLASSES)
            assert float(row["macro"].value) == pytest.approx(mean, abs=slack), row["name"]


@pytest.mark.parametrize(("name", "classes"), [("clips", CLASSES), ("yto_v1", ("cat", "zebra")), ("yto_v1", ())])
def test_other_videos_have_no_published_figures(name, classes):
    assert published_for(name, classes) is None


def test_the_table_is_also_csv(evaluation):
    rows = list(csv.DictReader(io.StringIO(table_csv(evaluation))))
    assert rows[3] == {
        "method": "tcam",
        "threshold": "0.5",
        "cat": "75.00",
        "dog": "60.00",
        "mean over classes": "67.50",
        "over frames": "66.67",
        "frames": "9",
        "low": "12.50",
        "high": "87.50",
        "protocol": "CorLoc, IoU >= 0.5, largest component, map threshold: validation",
    }


def test_the_markdown_holds_tables_and_notes(evaluation):
    lines = report_markdown("pets-001", evaluation, ["seed 0"]).splitlines()
    assert lines[0] == "# pets-001"
    assert "| tcam | 0.50 (validation) | IoU >= 0.5 | 67.5 | 12.5 to 87.5 | 66.7 | 75.0 | 60.0 |" in lines
    assert "| MaxBoxAcc | tcam | 61.2 | IoU >= 0.5, best threshold |" in lines
    assert lines[-1] == "* seed 0"


def test_names_can_neither_break_a_markdown_table_nor_become_tags():
    lines = markdown_table(["a"], [["x|y"], ["<script>alert(1)</script>"], ["two\nlines"], ["*b* [l](u)"]])
    assert lines[2:] == [
        "| x\\|y |",
        "| &lt;script>alert(1)&lt;/script> |",
        "| two lines |",
        "| \\*b\\* \\[l\\](u) |",
    ]


def test_a_metric_has_one_line_and_the_protocol_of_a_method_with_a_map(evaluation):
    metrics = (
        Metric("full frame", "Top-1 localization", 40.0, "%", "no map"),
        Metric("tcam", "Top-1 localization", 50.0, "%", "map threshold: validation"),
        Metric("tcam", "PxAP", math.nan, "%", "there were no masks"),
        Metric("tcam", "Top-1 localization", 55.0, "%", "oracle"),
    )
    lines = metric_table(replace(evaluation, metrics=metrics))["lines"]
    assert [(line["cells"], line["protocol"]) for line in lines] == [
        (["40.0", "50.0"], "map threshold: validation"),
        (["–", "55.0"], "oracle"),
    ]


def test_a_metric_without_unit_has_three_decimals(evaluation):
    metric = Metric("tcam", "Temporal stability", 0.87654, "", "mean IoU of neighbours")
    assert metric_table(replace(evaluation, metrics=(metric,)))["lines"][0]["cells"] == ["0.877"]
