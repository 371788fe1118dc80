import json
import math

import pytest

from pipelines.evaluation.results import evaluation_of, read_evaluation
from tcam.errors import DataError
from tcam.metrics.corloc import CorLocResult
from tcam.types import CorLocProtocol
from tests.helpers.results import FLOOR, write_results


def test_what_an_evaluation_stored_is_read_back(tmp_path):
    found = read_evaluation(write_results(tmp_path))
    assert (found.split, found.class_names, found.num_frames, found.num_videos) == ("test", ("cat", "dog"), 9, 3)
    assert found.localizers == ("layercam", "tcam")
    assert found.frames_per_class == {"cat": 4, "dog": 5}
    score = found.fair_score("tcam")
    assert score.protocol == CorLocProtocol("validation")
    assert (score.result.threshold, score.result.interval) == (0.5, (12.5, 87.5))
    assert score.result.per_class == {"cat": 75.0, "dog": 60.0}
    assert [score.fair for score in found.scores] == [True, True, False, True, False]
    assert math.isnan(found.metrics[-1].value)
    assert math.isnan(found.curves["tcam"].per_class["dog"][4])


def test_frames_come_in_order_of_video_and_frame(tmp_path):
    table = read_evaluation(write_results(tmp_path)).frames_of("tcam")
    keys = list(zip(table["video"], table["frame"], strict=True))
    assert keys == sorted(keys)
    assert len(keys) == 9


def test_without_the_table_of_frames_the_scores_are_still_there(tmp_path):
    write_results(tmp_path)
    (tmp_path / "per_frame.parquet").unlink()
    found = read_evaluation(tmp_path)
    assert found.frames is None
    assert found.frames_of("tcam").empty
    assert found.fair_score(FLOOR).result.macro == 22.5


def spoil(tmp_path, change):
    path = write_results(tmp_path) / "results.json"
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda stored: stored.update(format=2), "format 2 instead of 1"),
        (lambda stored: stored.pop("curves"), "no 'curves'"),
        (lambda stored: stored["rows"][0].pop("macro"), "no 'macro'"),
        (lambda stored: stored.update(rows=3), "not iterable"),
    ],
)
def test_other_files_are_refused_in_one_line_that_says_what_to_do(tmp_path, change, reason):
    spoil(tmp_path, change)
    with pytest.raises(DataError, match=rf"expected the results .* \(.*{reason}.*\); make them with 'tcam evaluate'"):
        read_evaluation(tmp_path)


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_evaluation(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(DataError, match="expected the results"):
        read_evaluation(tmp_path)


def test_a_table_of_frames_without_a_column_is_refused(tmp_path):
    frames = read_evaluation(write_results(tmp_path)).frames
    frames.drop(columns="tx1").to_parquet(tmp_path / "per_frame.parquet")
    with pytest.raises(DataError, match=r"per_frame.parquet has no column tx1"):
        read_evaluation(tmp_path)


def corloc(**per_class: float) -> CorLocResult:
    return CorLocResult(
        CorLocProtocol("validation"), 0.4, per_class, 1.0, 2.0, 3, {"v": 1.0}, {"cat": 3}, interval=(0.5, 1.5)
    )


def test_a_plain_table_of_results_can_be_shown_too():
    found = evaluation_of([("tcam", corloc(cat=1.0))], split="val")
    assert (found.split, found.class_names, found.localizers) == ("val", ("cat",), ("tcam",))
    assert found.scores[0].threshold_text == "0.40 (validation)"
    assert found.scores[0].result.interval == (0.5, 1.5)
    assert evaluation_of([]).scores == ()


def test_a_table_of_different_classes_is_refused():
    with pytest.raises(ValueError, match="rows must share their classes"):
        evaluation_of([("a", corloc(cat=1.0)), ("b", corloc(dog=1.0))])
