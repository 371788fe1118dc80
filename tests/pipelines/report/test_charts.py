import math

import pytest

from pipelines.report.charts import Series, bar_chart, line_chart, nice_ticks


def draw(*series: Series, **options):
    return line_chart("t", series, **{"x_label": "x", "y_label": "y", "y_range": (0.0, 100.0), **options})


def test_a_line_runs_from_left_to_right_and_upwards():
    (line,) = draw(Series("a", [0, 1, 2], [0, 50, 100])).series[0].lines
    assert line == "0,1000 500,500 1000,0"


def test_a_gap_cuts_a_line_and_a_lone_point_stays_visible():
    lines = draw(Series("a", [0, 1, 2, 3, 4], [0, 10, math.nan, 20, math.nan])).series[0].lines
    assert lines == ("0,1000 250,900", "750,800 750,800")


def test_a_band_lies_between_its_two_lines():
    (area,) = draw(Series("a", [0, 1], [80, 90], low=[20, 10])).series[0].areas
    assert area == "0,200 1000,100 1000,900 0,800"


def test_the_mark_lies_on_the_line_at_the_nearest_known_x():
    chart = draw(Series("a", [0, 0.5, 1], [0, math.nan, 40]), marks={"a": 0.6, "other": 0.1})
    assert chart.series[0].marks == ((100.0, 60.0),)


def test_every_x_says_the_values_of_all_series_there():
    chart = draw(Series("a", [0, 1], [1, 2]), Series("b", [1, 2], [3, math.nan], low=[0.5, math.nan]), x_label="frame")
    assert [piece.tip for piece in chart.slices] == [
        "frame 0\na: 1",
        "frame 1\na: 2\nb: 0.5 to 3",
        "frame 2\nb: – to –",
    ]
    assert (chart.slices[1].left, chart.slices[1].width) == (25.0, 50.0)


def test_long_lines_are_thinned():
    chart = draw(Series("a", list(range(1000)), [1.0] * 1000))
    assert len(chart.series[0].lines[0].split()) == 100
    assert len(chart.slices) == 100


def test_a_line_that_never_changes_and_a_single_epoch_have_a_place():
    chart = line_chart("t", [Series("a", [1], [5.0])], x_label="x", y_label="y")
    assert chart.series[0].lines == ("0,500 0,500",)
    assert [tick.text for tick in chart.x_ticks] == ["1"]


def test_a_chart_without_a_number_is_refused():
    with pytest.raises(ValueError, match="at least one finite value, got none"):
        draw(Series("a", [0.0], [math.nan]), y_range=None)
    with pytest.raises(ValueError, match="every series must have 2 values"):
        bar_chart("t", ["a", "b"], {"x": [1.0]}, x_label="x", y_label="y")


def test_bars_stand_side_by_side_and_a_missing_one_is_left_out():
    values = {"one": [50.0, math.nan], "two": [100.0, 25.0]}
    chart = bar_chart("t", ["s", "l"], values, x_label="size", y_label="y", y_range=(0, 100), notes=["7 frames", "9"])
    first, second = chart.series
    assert [(bar.left, bar.top, bar.height) for bar in first.bars] == [(5.0, 50.0, 50.0)]
    assert [(bar.left, bar.top, bar.height) for bar in second.bars] == [(25.0, 0.0, 100.0), (75.0, 75.0, 25.0)]
    assert [piece.tip for piece in chart.slices] == [
        "size s\n7 frames\none: 50\ntwo: 100",
        "size l\n9\none: –\ntwo: 25",
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (3, 3, [3]),
        (-0.011, 0.009, [-0.01, -0.005, 0.0, 0.005]),
        (1, 8, [2, 4, 6, 8]),
    ],
)
def test_ticks_are_round_numbers_within_the_range(low, high, expected):
    assert nice_ticks(low, high) == pytest.approx(expected)
