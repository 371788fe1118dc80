import dataclasses
import json
import math

import pandas as pd
import pytest
import torch
from PIL import Image

from pipelines.evaluation.metrics import list_metrics
from pipelines.evaluation.results import read_evaluation, save_results
from pipelines.evaluation.score import BASELINES, results_table
from pipelines.models.thresholds import read_presence, read_thresholds, save_thresholds
from pipelines.run.console import console
from tcam.errors import DataError
from tcam.types import Box, FrameTruth
from tests.helpers.scored import score, undecided
from tests.helpers.tiny import SIDE, tiny_localizer, whole_frame_truth


def test_floors_look_at_the_size_only():
    assert tuple(BASELINES["full frame"]((40, 80))) == (0, 0, 80, 40)
    assert tuple(BASELINES["centre box (50 %)"]((40, 80))) == (20, 10, 60, 30)


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
        ("layercam", "oracle per class"),
        ("tcam", "oracle per class"),
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


def test_frames_and_videos_without_a_row_are_unannotated_and_no_figure_counts_them_as_empty(tiny_data):
    """As the clips of webclips without boxes (gt_type none), wherever they lie."""
    whole = whole_frame_truth(tiny_data.index, (0, 3, 5))
    unannotated = tiny_data.index.records[0].video_id
    truth = [item for item in whole if item.video_id != unannotated and item.frame_index != 3]
    scored = score(tiny_data, truth, chosen={"tcam": 0.0}, tcam=undecided())
    table = scored.evaluators["tcam"].table("oracle")
    assert (table.num_frames, table.macro, table.micro) == (len(truth), 100, 100)
    assert set(table.per_video) == {item.video_id for item in truth}
    method = scored.methods["tcam"]
    present, false_alarms = method.presence.compute()
    assert present == 100
    assert math.isnan(false_alarms)
    assert sum(batch.num_rows for batch in method.rows()) == method.at_chosen.compute().num_frames == len(truth)
    kept = [record for record in tiny_data.index.records if record.video_id != unannotated]
    without = score(tiny_data, truth, records=kept, chosen={"tcam": 0.0}, tcam=undecided())
    assert without.evaluators["tcam"].table("oracle").as_dict() == table.as_dict()


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
    save_thresholds(path, {"tcam": 0.3}, chosen_on="validation", presence={"tcam": 0.7, "layercam": None})
    assert read_thresholds(path) == ({"tcam": 0.3}, "validation")
    assert read_presence(path) == {"tcam": 0.7}
    for text in ("{}", "{", '{"thresholds": {"tcam": "x"}, "chosen_on": "validation"}'):
        path.write_text(text)
        with pytest.raises(DataError, match=r"expected the run's map thresholds in .*; resume the run"):
            read_thresholds(path)
    path.unlink()
    with pytest.raises(DataError, match="expected the run's map thresholds in"):
        read_thresholds(path)


def saved(folder, data, truth, *, chosen_on="validation", components="largest", **localizers):
    """Score, save and give (rows, results.json, per_frame.parquet)."""
    chosen = dict.fromkeys(localizers, 0.5)
    scored = score(data, truth, chosen=chosen, components=components, **localizers)
    rows = results_table(scored, chosen, chosen_on)
    save_results(folder, rows, scored.methods, chosen, split="test", chosen_on=chosen_on)
    return rows, json.loads((folder / "results.json").read_text()), pd.read_parquet(folder / "per_frame.parquet")


def test_stored_results_read_back_as_they_were(tiny_data, tmp_path):
    some = [item for item in whole_frame_truth(tiny_data.index) if item.label == 1]  # the other class is NaN
    rows, _, _ = saved(tmp_path, tiny_data, some, tcam=undecided())
    read = read_evaluation(tmp_path).scores
    assert [(name, result.protocol, result.threshold) for name, result in read] == [
        (name, result.protocol, result.threshold) for name, result in rows
    ]
    assert [result.as_dict() for _, result in read] == [result.as_dict() for _, result in rows]
    assert math.isnan(read[0].result.per_class["beetle"])


def test_results_hold_every_protocol_curve_and_count(tiny_data, tmp_path):
    _, results, _ = saved(tmp_path, tiny_data, whole_frame_truth(tiny_data.index), tcam=undecided())
    assert (results["format"], results["split"], results["chosen_on"]) == (1, "test", "validation")
    assert results["frames_per_class"] == {"beetle": 8, "fish": 8}
    assert results["videos_per_class"] == {"beetle": 4, "fish": 4}
    assert (results["num_frames"], results["num_videos"]) == (16, 8)
    assert [(row["kind"], row["threshold_choice"]) for row in results["rows"]] == [
        ("baseline", "none"),
        ("baseline", "none"),
        ("localizer", "validation"),
        ("localizer", "oracle"),
        ("localizer", "oracle per class"),
    ]
    row = results["rows"][2]
    assert (row["method"], row["metric"], row["macro"], row["micro"], row["interval"]) == (
        "tcam",
        "CorLoc",
        100,
        100,
        [100, 100],
    )
    assert row["protocol"] == "CorLoc, IoU >= 0.5, largest component, map threshold: validation"
    assert (row["iou_threshold"], row["inclusive"], row["components"], row["threshold"]) == (0.5, False, "largest", 0.5)
    assert len(row["per_video"]) == 8
    assert results["rows"][4]["thresholds_per_class"] == {"beetle": 0.0, "fish": 0.0}
    curve = results["curves"]["tcam"]
    assert results["curves"].keys() == {"tcam"}
    assert curve["thresholds"] == [i / 10 for i in range(10)]
    assert curve["macro"] == curve["micro"] == curve["per_class"]["fish"] == [100] * 10
    assert results["thresholds"] == {"tcam": 0.5}


def test_every_other_figure_comes_with_its_protocol(tiny_data, tmp_path):
    _, results, _ = saved(tmp_path, tiny_data, whole_frame_truth(tiny_data.index), tcam=undecided())
    figures = {(item["method"], item["name"]): item for item in results["metrics"]}
    assert all(item["unit"] == "%" and item["protocol"] for item in results["metrics"])
    values = {name: item["value"] for (method, name), item in figures.items() if method == "tcam"}
    for name in ("MaxBoxAcc", "MaxBoxAccV2", "Top-5 localization", "Presence"):
        assert values[name] == 100
    assert values["Top-1 localization"] == values["Classification accuracy"]
    assert values["Temporal stability: centre"] == values["Temporal stability: fragments"] == 0
    assert values["Presence: false alarms"] is None
    assert figures["centre box (50 %)", "MaxBoxAccV2"]["value"] == 0  # IoU 0.25
    assert figures["full frame", "MaxBoxAcc"]["value"] == 100
    assert "oracle" in figures["tcam", "MaxBoxAcc"]["protocol"]
    assert "map threshold: validation" in figures["tcam", "Top-1 localization"]["protocol"]
    assert ("full frame", "Top-1 localization") not in figures


def test_each_method_and_frame_has_a_row(tiny_data, tmp_path):
    truth = tuple(
        FrameTruth(item.video_id, item.frame_index, item.label, (Box(0, 0, 8, 8), *item.boxes))
        for item in whole_frame_truth(tiny_data.index)
    )
    _, _, frames = saved(tmp_path, tiny_data, truth, tcam=undecided())
    assert len(frames) == 3 * 16
    ours = frames[frames.method == "tcam"]
    assert sorted(set(ours.frame)) == [0, 5]
    assert set(zip(ours["class"], ours.video.str.split("/").str[0], strict=True)) == {
        ("beetle", "beetle"),
        ("fish", "fish"),
    }
    assert (ours.num_truth == 2).all()
    assert (ours.truth_area == 1).all()
    assert (ours[["x0", "y0", "tx0", "ty0"]] == 0).all(axis=None)
    assert (ours.x1 == ours.width).all()
    assert (ours.ty1 == ours.height).all()
    assert (ours.iou == 1).all()
    assert (ours.best_iou == 1).all()
    assert ours.map_peak.tolist() == pytest.approx([0.5] * 16)
    assert ours.class_score.between(0.5, 1).all()
    assert set(ours.pred_class) <= {"beetle", "fish"}
    baselines = frames[frames.method != "tcam"]
    assert baselines[["pred_class", "class_score", "map_peak"]].isna().all(axis=None)


def test_a_frame_where_nothing_is_found_has_no_box_in_its_row(tiny_data, tmp_path):
    scored = score(tiny_data, whole_frame_truth(tiny_data.index), chosen={"tcam": 1.0}, tcam=undecided())
    save_results(tmp_path, results_table(scored, {}), scored.methods, {}, split="test", chosen_on="default")
    frames = pd.read_parquet(tmp_path / "per_frame.parquet")
    ours = frames[frames.method == "tcam"]
    assert ours[["x0", "y0", "x1", "y1"]].isna().all(axis=None)
    assert (ours.iou == 0).all()
    assert (ours.best_iou == 1).all()
    figures = {item.name: item.value for item in list_metrics(scored.methods, "default") if item.method == "tcam"}
    assert figures["Presence"] == 0
    assert math.isnan(figures["Temporal stability: centre"])


def test_a_default_threshold_is_named_as_one(tiny_data, tmp_path):
    rows, results, _ = saved(
        tmp_path, tiny_data, whole_frame_truth(tiny_data.index), chosen_on="default", tcam=undecided()
    )
    assert str(rows[2][1].protocol).endswith("map threshold: default")
    assert results["rows"][2]["threshold_choice"] == "default"


def test_the_benchmarks_rule_is_another_protocol_with_a_thousand_thresholds(tiny_data, tmp_path):
    truth = whole_frame_truth(tiny_data.index)
    _, results, frames = saved(tmp_path, tiny_data, truth, components="largest contour", tcam=undecided())
    row = results["rows"][2]
    assert row["protocol"].startswith("CorLoc, inclusive-pixel IoU >= 0.5 on the 224 grid, largest contour")
    assert (row["inclusive"], row["components"], row["macro"]) == (True, "largest contour", 100)
    assert len(results["curves"]["tcam"]["thresholds"]) == 1000
    assert (frames[frames.method == "tcam"].iou > 0.98).all()  # boxes end at pixel 223 of 224


def test_a_frame_known_to_hold_no_object_counts_for_false_alarms_only(tiny_data):
    truth = list(whole_frame_truth(tiny_data.index))
    truth[0] = FrameTruth(truth[0].video_id, truth[0].frame_index, truth[0].label, ())
    scored = score(tiny_data, truth, chosen={"tcam": 0.5}, tcam=undecided())
    assert scored.evaluators["tcam"].table("oracle").num_frames == 15
    figures = {item.name: item.value for item in list_metrics(scored.methods, "validation") if item.method == "tcam"}
    assert (figures["Presence"], figures["Presence: false alarms"]) == (100, 100)


def test_pixels_are_judged_where_frames_have_masks(tiny_data, tmp_path):
    pixels = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    pixels[: SIDE // 4] = 255
    Image.fromarray(pixels.numpy()).save(tmp_path / "0.png")
    truth = list(whole_frame_truth(tiny_data.index))
    truth[0] = dataclasses.replace(truth[0], mask=str(tmp_path / "0.png"))
    truth[1] = dataclasses.replace(truth[1], mask=str(tmp_path / "0.png"), boxes=())
    scored = score(tiny_data, truth, chosen={"tcam": 0.5}, tcam=undecided())
    figures = {item.name: item.value for item in list_metrics(scored.methods, "validation") if item.method == "tcam"}
    assert figures["PxAP"] == pytest.approx(25)  # a map of one value cannot tell pixels apart
    scored = score(tiny_data, whole_frame_truth(tiny_data.index), chosen={"tcam": 0.5}, tcam=undecided())
    assert math.isnan({item.name: item.value for item in list_metrics(scored.methods, "validation")}["PxAP"])


def test_a_frame_whose_truth_lies_outside_the_picture_is_not_judged(tiny_data, capsys, monkeypatch):
    monkeypatch.setattr(console, "quiet", False)
    truth = list(whole_frame_truth(tiny_data.index))
    truth[0] = FrameTruth(truth[0].video_id, truth[0].frame_index, truth[0].label, (Box(900, 900, 950, 950),))
    truth[1] = FrameTruth(truth[1].video_id, truth[1].frame_index, truth[1].label, (Box(-50, -50, 900, 900),))
    result = score(tiny_data, truth, tcam=undecided()).evaluators["tcam"].table("oracle")
    assert result.num_frames == 15
    assert result.macro == 100  # cut to the picture, the second is the whole frame
    assert "1 annotated frames are not scored" in " ".join(capsys.readouterr().err.split())
