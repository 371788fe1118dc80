import dataclasses
import json
import math

import pytest
import torch

from pipelines.evaluate import (
    FLOORS,
    percent,
    print_table,
    read_rows,
    read_thresholds,
    results_table,
    save_rows,
    save_thresholds,
    score_videos,
)
from pipelines.runlog import console
from tcam.errors import DataError
from tcam.types import Box, FrameTruth
from tests.pipelines.tiny import SIDE, tiny_config, tiny_localizer, whole_frame_truth


def score(data, truth, *, batch: int = 8, records=None, **localizers):
    return score_videos(
        localizers,
        data.index,
        data.index.records if records is None else records,
        truth,
        settings=tiny_config(f"evaluation.batch={batch}").evaluation,
        size=(SIDE, SIDE),
    )


def undecided():
    """A decoder with the map 0.5 everywhere: boxes the whole frame below the threshold's last step."""
    localizer = tiny_localizer("decoder")
    with torch.no_grad():
        localizer.network.decoder.head.weight.zero_()
    return localizer


def test_floors_look_at_the_size_only():
    assert tuple(FLOORS["full frame"]((40, 80))) == (0, 0, 80, 40)
    assert tuple(FLOORS["centre box (50 %)"]((40, 80))) == (20, 10, 60, 30)


def test_each_method_is_scored_against_the_boxes(tiny_data):
    scored = score(tiny_data, whole_frame_truth(tiny_data.index), tcam=undecided())
    rows = dict(results_table(scored, {"tcam": 0.5}))
    assert scored.failures == ()
    assert rows["full frame"].macro == 100.0
    assert rows["centre box (50 %)"].macro == 0.0  # IoU 0.25
    assert rows["tcam"].macro == 100.0
    assert rows["tcam"].num_frames == 16


def test_boxes_count_by_class(tiny_data):
    truth = tuple(
        item if item.label == 0 else FrameTruth(item.video_id, item.frame_index, 1, (Box(0, 0, 8, 8),))
        for item in whole_frame_truth(tiny_data.index)
    )
    result = dict(results_table(score(tiny_data, truth, tcam=undecided()), {"tcam": 0.2}))["tcam"]
    assert result.per_class == {"beetle": 100.0, "fish": 0.0}
    assert result.macro == 50.0


def test_floors_come_first_then_chosen_thresholds_then_oracles(tiny_data):
    truth = whole_frame_truth(tiny_data.index, frames=(0,))
    scored = score(tiny_data, truth, layercam=tiny_localizer(), tcam=undecided())
    rows = [(name, result.protocol.threshold_choice) for name, result in results_table(scored, {"tcam": 0.5})]
    assert rows == [
        ("centre box (50 %)", "none"),
        ("full frame", "none"),
        ("tcam", "validation"),
        ("layercam", "oracle"),
        ("tcam", "oracle"),
    ]
    assert scored.best_thresholds().keys() == {"layercam", "tcam"}


def test_the_oracle_is_at_least_as_good_as_any_chosen_threshold(tiny_data):
    scored = score(tiny_data, tiny_data.truth, layercam=tiny_localizer())
    oracle = scored.evaluators["layercam"].table("oracle")
    grid = scored.evaluators["layercam"].thresholds
    assert all(scored.evaluators["layercam"].table("validation", value).macro <= oracle.macro for value in grid)
    assert scored.best_thresholds()["layercam"] == oracle.threshold
    assert oracle.num_frames == len(tiny_data.truth)


def test_results_do_not_depend_on_the_batch(tiny_data):
    one, many = (
        score(tiny_data, tiny_data.truth, batch=batch, layercam=tiny_localizer()).evaluators["layercam"].table("oracle")
        for batch in (3, 8)
    )
    assert one.as_dict() == many.as_dict()


def test_videos_without_boxes_are_not_judged_and_none_at_all_is_an_error(tiny_data):
    truth = [item for item in whole_frame_truth(tiny_data.index) if item.label == 1]
    result = score(tiny_data, truth, tcam=undecided()).evaluators["tcam"].table("oracle")
    assert result.frames_per_class == {"beetle": 0, "fish": 8}
    assert result.macro == 100.0
    with pytest.raises(DataError, match=r"expected boxes to compare with \(boxes\.csv: .*found none for these videos"):
        score(tiny_data, truth, records=[item for item in tiny_data.index.records if item.label == 0])


def test_a_video_that_cannot_be_read_is_listed_and_the_others_are_judged(tiny_data, tmp_path):
    first, *others = tiny_data.index.records
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    records = [dataclasses.replace(first, path=str(broken)), *others]
    scored = score(tiny_data, whole_frame_truth(tiny_data.index), records=records, tcam=undecided())
    ((video_id, reason),) = scored.failures
    assert video_id == first.video_id
    assert "\n" not in reason
    assert scored.evaluators["tcam"].table("oracle").num_frames == 2 * len(others)


def test_thresholds_read_back_and_missing_ones_say_what_to_do(tmp_path):
    path = tmp_path / "evaluation" / "thresholds.json"
    save_thresholds(path, {"tcam": 0.3}, chosen_on="validation")
    assert read_thresholds(path) == ({"tcam": 0.3}, "validation")
    for text in ("{}", "{", '{"thresholds": {"tcam": "x"}, "chosen_on": "validation"}'):
        path.write_text(text)
        with pytest.raises(DataError, match=r"expected the run's map thresholds in .*; resume the run"):
            read_thresholds(path)
    path.unlink()
    with pytest.raises(DataError, match="expected the run's map thresholds in"):
        read_thresholds(path)


def test_a_stored_table_reads_back_and_anything_else_is_refused(tiny_data, tmp_path):
    path = tmp_path / "test.json"
    some = [item for item in whole_frame_truth(tiny_data.index) if item.label == 1]  # the other class is NaN
    rows = results_table(score(tiny_data, some, tcam=undecided()), {"tcam": 0.5})
    save_rows(path, rows)
    read = read_rows(path)
    assert [(name, result.protocol, result.threshold) for name, result in read] == [
        (name, result.protocol, result.threshold) for name, result in rows
    ]
    assert [result.as_dict() for _, result in read] == [result.as_dict() for _, result in rows]
    assert math.isnan(read[0][1].per_class["beetle"])
    for text in ("", "3", "[1]", "[{}]", '[{"method": "tcam", "protocol": "by eye"}]'):
        path.write_text(text)
        with pytest.raises(DataError, match=r"expected a table of CorLoc results in .*test\.json, found none"):
            read_rows(path)


def test_the_printed_table_names_the_protocol_and_goes_to_stderr(tiny_data, capsys, monkeypatch):
    monkeypatch.setattr(console, "quiet", False)
    rows = results_table(score(tiny_data, whole_frame_truth(tiny_data.index), tcam=undecided()), {})
    print_table(rows, "test split of [videos]")
    out, err = capsys.readouterr()
    assert out == ""
    text = " ".join(err.split())
    assert "test split of [videos]" in text
    for part in ("beetle", "fish", "full frame", "100.0", "IoU >= 0.5", "oracle"):
        assert part in text
    json.dumps([result.as_dict() for _, result in rows], allow_nan=False)


def test_a_percentage_that_is_not_there_is_a_dash():
    assert percent(float("nan")) == "-"
    assert percent(99.96) == "100.0"
