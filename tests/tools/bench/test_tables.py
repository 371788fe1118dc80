"""Tables of the ablation, from results written by hand."""

import math

import pytest

from tcam.metrics.corloc import CorLocResult
from tcam.types import CorLocProtocol

VIDEOS = {"cat/a.mp4": (0, 10), "cat/b.mp4": (0, 30), "dog/c.mp4": (1, 20)}


def result(choice, macro, videos=(0.0, 0.0, 0.0)):
    return CorLocResult(
        protocol=CorLocProtocol(choice),
        threshold=None if choice == "none" else 0.4,
        per_class={"cat": macro, "dog": math.nan},
        macro=macro,
        micro=macro + 1,
        num_frames=60,
        per_video=dict(zip(VIDEOS, videos, strict=True)),
        frames_per_class={"cat": 40, "dog": 20},
    )


def run(method, validation, oracle, videos=(0.0, 0.0, 0.0)):
    """What a run of a localizer method stores: baseline, its CAM and itself under both choices."""
    return [
        ("full frame", result("none", 5.0)),
        ("layercam", result("validation", 99.0)),
        (method, result("validation", validation, videos)),
        ("layercam", result("oracle", 99.0)),
        (method, result("oracle", oracle)),
    ]


def cam(validation, oracle):
    return [
        ("full frame", result("none", 5.0)),
        ("layercam", result("validation", validation)),
        ("layercam", result("oracle", oracle)),
    ]


@pytest.fixture
def results(bench):
    runs = {
        "layercam": [cam(20, 30), cam(22, 30)],
        "tcam": [run("tcam", 25, 40), run("tcam", 26, 42)],
        "colocam": [run("colocam", 28, 40, (100.0, 0.0, 50.0)), run("colocam", 27, 42, (100.0, 0.0, 50.0))],
    }
    return bench.collect(runs, baselines_of="layercam")


def test_each_row_gives_its_own_method_and_the_baselines_come_once(results):
    found = {name: {choice: len(same) for choice, same in by_choice.items()} for name, by_choice in results.items()}
    both = {"validation": 2, "oracle": 2}
    assert found == {"full frame": {"none": 2}, "layercam": both, "tcam": both, "colocam": both}
    assert [item.macro for item in results["tcam"]["validation"]] == [25, 26]


def test_scores_are_mean_and_sample_deviation_over_seeds(bench, results):
    lines = bench.score_table(results, {"layercam": [1.0, 3.0], "tcam": [None, 2.0], "colocam": [None, None]})
    assert lines[0] == "60 frames"
    assert lines[2] == "| method | map threshold | mean | over frames | cat | dog | minutes |"
    assert lines[4:] == [
        "| full frame | no map | 5.0 | 6.0 | 5.0 | – |  |",
        "| layercam | validation | 21.0 ± 1.4 | 22.0 ± 1.4 | 21.0 ± 1.4 | – | 2.0 ± 1.4 |",
        "| tcam | validation | 25.5 ± 0.7 | 26.5 ± 0.7 | 25.5 ± 0.7 | – | 2.0 |",
        "| colocam | validation | 27.5 ± 0.7 | 28.5 ± 0.7 | 27.5 ± 0.7 | – | – |",
        "| layercam | oracle | 30.0 | 31.0 | 30.0 | – | 2.0 ± 1.4 |",
        "| tcam | oracle | 41.0 ± 1.4 | 42.0 ± 1.4 | 41.0 ± 1.4 | – | 2.0 |",
        "| colocam | oracle | 41.0 ± 1.4 | 42.0 ± 1.4 | 41.0 ± 1.4 | – | – |",
    ]
    assert {line.count("|") for line in lines[2:]} == {8}


def test_without_times_there_is_no_column_for_them(bench, results):
    lines = bench.score_table(results, {})
    assert lines[2] == "| method | map threshold | mean | over frames | cat | dog |"
    assert {line.count("|") for line in lines[2:]} == {7}


def test_seeds_are_compared_in_pairs(bench, results):
    lines = bench.seed_table(results, [0, 7], VIDEOS, baseline="tcam", choice="validation")
    assert lines[0] == "mean over classes, map threshold: validation"
    assert lines[2] == "| method | seed 0 | seed 7 | minus tcam | 95 % of video draws | draws above 0 |"
    assert lines[5] == "| tcam | 25.0 | 26.0 |  |  |  |"
    assert lines[4] == "| layercam | 20.0 (-5.0) | 22.0 (-4.0) | -4.5 ± 0.7 | +0.0 .. +0.0 | 0 % |"
    assert lines[6].startswith("| colocam | 28.0 (+3.0) | 27.0 (+1.0) | +2.0 ± 1.4 | +0.0 .. +")
    assert {line.count("|") for line in lines[2:]} == {7}


def test_without_the_baseline_the_seeds_stand_alone(bench, results):
    del results["tcam"]
    lines = bench.seed_table(results, [0, 1], VIDEOS, baseline="tcam", choice="validation")
    assert lines[2:] == [
        "| method | seed 0 | seed 1 |",
        "|---|---:|---:|",
        "| layercam | 20.0 | 22.0 |",
        "| colocam | 28.0 | 27.0 |",
    ]


def test_where_seeds_have_other_test_videos_none_are_drawn(bench, results):
    results["colocam"]["validation"][1].per_video.pop("dog/c.mp4")
    assert "| videos differ |  |" in bench.seed_table(results, [0, 1], VIDEOS, baseline="tcam", choice="validation")[6]


def test_the_mean_of_the_draws_is_near_the_difference_and_their_spread_is_that_of_the_videos(bench):
    a, b = [result("validation", 0, (100.0, 0.0, 50.0))], [result("validation", 0)]
    drawn = bench.resample_difference(a, b, VIDEOS)
    assert drawn.shape == (10_000,)
    # Of 27 equally likely draws: cat holds a and b in unequal numbers, dog is always 50 where it is drawn.
    possible = {0.0, 100.0, 25.0, 100 / 7, 40.0, 50.0, 75.0, (25 + 50) / 2}
    assert {round(value, 6) for value in drawn.unique().tolist()} == {round(value, 6) for value in possible}
    assert float((drawn == 0).double().mean()) == pytest.approx(1 / 27, abs=0.01)
    assert float((drawn == 37.5).double().mean()) == pytest.approx(6 / 27, abs=0.02)


def test_the_same_results_differ_in_no_draw(bench):
    same = [result("validation", 0, (100.0, 30.0, 50.0)), result("validation", 0, (10.0, 0.0, 5.0))]
    assert not bench.resample_difference(same, same, VIDEOS).any()


def test_seeds_are_compared_by_the_choices_without_the_boxes_of_the_split(bench, results):
    assert bench.seed_choices(results) == ["validation"]
    results["tcam"]["tags"] = results["tcam"]["validation"]
    assert bench.seed_choices(results) == ["tags", "validation"]
    assert bench.seed_choices({"tcam": {"oracle": []}}) == ["oracle"]
