import json
import math
import statistics

import pytest
import yaml

from pipelines.report.compare import compare_runs, spread
from pipelines.report.compare_page import write_comparison_page
from tcam.errors import ConfigError, DataError
from tests.helpers.results import FLOOR, OVERLAPS, write_run

LAYERCAM = {name: OVERLAPS[name] for name in (FLOOR, "layercam")}


@pytest.fixture
def runs(tmp_path):
    """Give a LayerCAM run and two seeds of TCAM, the second one a little worse."""
    worse = {**OVERLAPS, "tcam": {**OVERLAPS["tcam"], "dog/bo.mp4": [0.4, 0.4]}}
    return [
        write_run(tmp_path / "layercam-seed0-001", LAYERCAM, "method=cam"),
        write_run(tmp_path / "tcam-seed0-001", OVERLAPS),
        write_run(tmp_path / "tcam-seed1-001", worse, "seed=1"),
    ]


def test_runs_called_alike_up_to_the_seed_are_one_method_with_mean_and_deviation(runs):
    comparison = compare_runs(runs)
    assert {name: len(members) for name, members in comparison.groups.items()} == {"layercam": 1, "tcam": 2}
    fair = {(s.group, s.method): s for s in comparison.scores if s.threshold_choice in ("validation", "none")}
    assert fair["tcam", "tcam"].macro == [67.5, 57.5]
    assert spread(fair["tcam", "tcam"].macro) == "62.5 ± 7.1"
    assert fair["layercam", "layercam"].macro == [45.0]
    assert fair["", FLOOR].macro == [22.5]
    assert list(fair["tcam", "tcam"].per_class) == ["cat", "dog"]


def test_runs_that_differ_in_the_seed_alone_are_one_method_whatever_they_are_called(tmp_path):
    folders = [write_run(tmp_path / f"pets-00{i}", OVERLAPS, f"seed={i}") for i in (1, 2)]
    other = write_run(tmp_path / "pets-003", OVERLAPS, "seed=3", "localizer.lr=0.5")
    assert list(compare_runs([*folders, other]).groups) == ["pets-001", "pets-003"]


def test_the_same_seed_twice_makes_two_methods(tmp_path):
    folders = [write_run(tmp_path / f"tcam-seed0-00{i}") for i in (1, 2)]
    assert list(compare_runs(folders).groups) == ["tcam", "tcam-seed0-002"]


def test_the_difference_is_that_of_the_scores_paired_by_seed_and_by_video(runs):
    (item,) = compare_runs(runs).differences
    assert (item.group, item.baseline) == ("tcam", "layercam")
    assert item.difference == pytest.approx(67.5 - 45.0)  # seed 1 has no partner
    assert item.per_seed == {0: pytest.approx(22.5)}
    assert item.per_video == {"cat/tom.mp4": 25.0, "dog/bo.mp4": 50.0, "dog/rex.mp4": 0.0}


def test_without_a_common_seed_the_means_are_compared(runs, tmp_path):
    alone = write_run(tmp_path / "other", LAYERCAM, "method=cam", "seed=9")
    (item,) = compare_runs([alone, *runs[1:]]).differences
    assert item.per_seed == {}
    assert item.difference == pytest.approx(62.5 - 45.0)


def test_the_interval_holds_95_percent_of_the_draws_of_videos(runs):
    (item,) = compare_runs(runs).differences
    # 3 videos make 27 draws of equal weight; a class that a draw misses is left out of its mean
    gain = {"cat": (0.25, 4), "bo": (0.5, 2), "rex": (0.0, 3)}
    draws = []
    for draw in ((a, b, c) for a in gain for b in gain for c in gain):
        means = []
        for members in (("cat",), ("bo", "rex")):
            taken = [gain[name] for name in draw if name in members]
            if taken:
                means.append(100 * sum(g * n for g, n in taken) / sum(n for _, n in taken))
        draws.append(statistics.fmean(means))
    assert item.interval == pytest.approx((min(draws), max(draws)))  # 0 and 50: 1 of 27 each, more than 2.5 %
    assert item.above_zero == pytest.approx(26 / 27, abs=0.01)


def test_equal_runs_differ_by_nothing(tmp_path):
    folders = [write_run(tmp_path / name, OVERLAPS, *extra) for name, *extra in (("a",), ("b", "localizer.lr=0.5"))]
    (item,) = compare_runs(folders).differences
    assert (item.difference, item.interval, item.above_zero) == (0.0, (0.0, 0.0), 0.0)


def test_only_settings_that_differ_are_listed(runs):
    found = compare_runs(runs).settings
    assert found == {"method": ["cam", "tcam", "tcam"], "seed": [0, 0, 1]}


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        ({"dog/bo.mp4": [0.1]}, {}, "9 and 8, frame 5 of dog/bo.mp4 in one of them only"),
        ({"cat/new.mp4": [0.1]}, {}, "9 and 10, frame 0 of cat/new.mp4 in one of them only"),
        ({}, {"iou_threshold": 0.7}, "IoU >= 0.5 and IoU >= 0.7"),
    ],
)
def test_runs_judged_on_other_frames_are_refused(tcam, tmp_path, change, options, reason):
    other = {method: {**videos, **change} for method, videos in OVERLAPS.items()}
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b", other, **options)
    outcome = tcam("compare", first, second, "-o", tmp_path / "out")
    assert outcome.code == 3
    assert outcome.error.startswith("expected a and b judged alike on the same test frames, found ")
    assert reason in outcome.error
    assert not (tmp_path / "out").exists()


def test_what_is_no_evaluated_run_is_refused(tmp_path):
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    with pytest.raises(ConfigError, match="compare needs two different runs or more"):
        compare_runs([first, first])
    (second / "evaluation" / "per_frame.parquet").unlink()
    with pytest.raises(DataError, match=r"expected per_frame.parquet in .*b/evaluation, found none"):
        compare_runs([first, second])
    with pytest.raises(DataError, match="expected a run folder"):
        compare_runs([first, tmp_path / "c"])


def test_the_command_leaves_page_markdown_and_json_and_prints_json_on_demand(tcam, runs, tmp_path):
    outcome = tcam("compare", *runs, "-o", tmp_path / "out", "--json")
    assert outcome.code == 0, outcome.err
    printed = json.loads(outcome.out)
    assert printed == json.loads((tmp_path / "out" / "compare.json").read_text())
    assert printed["differences"][0]["per_seed"] == {"0": 22.5}
    assert "paired differences" in outcome.err
    lines = (tmp_path / "out" / "compare.md").read_text().splitlines()
    assert "| tcam | tcam | validation | IoU >= 0.5 | 62.5 ± 7.1 | 61.1 ± 7.9 | 75.0 ± 0.0 | 50.0 ± 14.1 |" in lines
    assert any(line.startswith("| tcam | layercam | +22.5 | +0.0 to +50.0 |") for line in lines)
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "62.5 ± 7.1" in page
    assert "+22.5" in page


def test_names_of_runs_cannot_become_markup(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    hostile = {name: {**videos, f"cat/{evil}.mp4": [0.9]} for name, videos in OVERLAPS.items()}
    folders = [write_run(tmp_path / name, hostile) for name in (evil, "b")]
    config = folders[0] / "config.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["model"]["backbone"] = evil
    config.write_text(yaml.safe_dump(settings))
    write_comparison_page(tmp_path / "out", compare_runs(folders))
    text = (tmp_path / "out" / "compare.html").read_text()
    assert "<img" not in text
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") >= 4
    assert "<img" not in (tmp_path / "out" / "compare.md").read_text()


def test_a_class_without_frames_is_a_dash():
    assert spread([math.nan]) == "–"
    assert spread([1.0, math.nan]) == "1.0"
