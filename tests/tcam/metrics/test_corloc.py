import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tcam.boxes.boxes import best_overlap, stack_boxes
from tcam.boxes.extract import boxes_at_thresholds
from tcam.metrics.corloc import CorLocEvaluator
from tcam.types import Box, FrameTruth

CLASSES = ("cat", "dog", "on")
SQUARE = Box(0, 0, 4, 4)
NAN = [math.nan] * 4


def truth(label: int, *boxes: Box, video: str = "v", frame: int = 0) -> FrameTruth:
    return FrameTruth(video, frame, label, boxes or (SQUARE,))


def rows(*boxes) -> torch.Tensor:
    return torch.tensor([NAN if box is None else list(box) for box in boxes], dtype=torch.float64)


def judge(evaluator: CorLocEvaluator, item: FrameTruth, boxes: torch.Tensor) -> None:
    evaluator.add([item], best_overlap(boxes[None], stack_boxes([item.boxes]))[0])


def toy() -> CorLocEvaluator:
    """Three cats and one dog at thresholds 0.2 and 0.6: cats right 1/3 and 2/3, the dog 1 and 0."""
    evaluator = CorLocEvaluator(CLASSES, [0.2, 0.6])
    judge(evaluator, truth(0, video="a", frame=0), rows(SQUARE, SQUARE))
    judge(evaluator, truth(0, video="a", frame=1), rows(None, SQUARE))
    judge(evaluator, truth(0, video="b"), rows(None, Box(9, 9, 10, 10)))
    judge(evaluator, truth(1, video="c"), rows(SQUARE, None))
    return evaluator


def test_accuracy_counts_right_frames_in_percent():
    evaluator = toy()
    assert evaluator.accuracy(0).tolist() == pytest.approx([100 / 3, 200 / 3])
    assert evaluator.accuracy(1).tolist() == [100, 0]
    assert evaluator.accuracy(2).isnan().all()
    assert evaluator.accuracy().tolist() == [50, 50]
    assert evaluator.macro_accuracy().tolist() == pytest.approx([200 / 3, 100 / 3])


def test_the_best_threshold_is_the_first_of_the_best():
    evaluator = toy()
    assert evaluator.best_threshold() == 0.2
    assert evaluator.best_threshold(macro=False) == 0.2  # both give 50
    reordered = CorLocEvaluator(CLASSES, [0.6, 0.2])
    judge(reordered, truth(0), rows(SQUARE, SQUARE))
    assert reordered.best_threshold() == 0.6


def test_a_validation_table_uses_the_threshold_it_is_given():
    result = toy().table("validation", 0.6)
    assert result.threshold == 0.6
    assert result.per_class["cat"] == pytest.approx(200 / 3)
    assert result.per_class["dog"] == 0
    assert math.isnan(result.per_class["on"])
    assert result.macro == pytest.approx(100 / 3)
    assert result.micro == 50
    assert result.num_frames == 4
    assert result.per_video == {"a": 100, "b": 0, "c": 0}
    assert result.frames_per_class == {"cat": 3, "dog": 1, "on": 0}
    assert str(result.protocol) == "CorLoc, IoU >= 0.5, largest component, map threshold: validation"


def test_an_oracle_table_finds_the_best_threshold_for_all_classes_at_once():
    result = toy().table("oracle")
    assert result.threshold == 0.2
    assert result.macro == pytest.approx(200 / 3)
    assert result.protocol.threshold_choice == "oracle"


def test_an_oracle_per_class_gives_every_class_its_own_threshold():
    result = toy().table("oracle per class")
    assert result.threshold is None
    assert result.thresholds_per_class == {"cat": 0.6, "dog": 0.2}
    assert result.per_class["cat"] == pytest.approx(200 / 3)
    assert result.per_class["dog"] == 100
    assert result.macro == pytest.approx(250 / 3)
    assert result.micro == 75
    assert result.per_video == {"a": 100, "b": 0, "c": 100}


def test_a_floor_needs_no_threshold():
    evaluator = CorLocEvaluator(CLASSES, [0.0])
    judge(evaluator, truth(1), rows(SQUARE))
    for result in (evaluator.table("none"), evaluator.table("none", 0.0)):
        assert result.threshold is None
        assert result.macro == 100
        assert str(result.protocol).endswith(">= 0.5, no map")


def test_half_of_a_box_is_enough_and_a_little_less_is_not():
    evaluator = CorLocEvaluator(CLASSES, [0.1, 0.2])
    judge(evaluator, truth(0), rows(Box(0, 0, 4, 2), Box(0, 0, 4, 1.99)))
    assert evaluator.accuracy().tolist() == [100, 0]


def test_the_best_of_several_true_boxes_counts():
    evaluator = CorLocEvaluator(CLASSES, [0.5])
    judge(evaluator, truth(0, Box(20, 20, 30, 30), SQUARE), rows(SQUARE))
    assert evaluator.accuracy().tolist() == [100]


def test_another_iou_threshold_is_used_and_named():
    evaluator = CorLocEvaluator(CLASSES, [0.5], iou_threshold=0.7)
    judge(evaluator, truth(0), rows(Box(0, 0, 4, 2.5)))
    result = evaluator.table("oracle")
    assert result.macro == 0
    assert "IoU >= 0.7" in str(result.protocol)


def test_hand_drawn_maps_give_the_hand_counted_score():
    evaluator = CorLocEvaluator(CLASSES, [0.0, 0.5, 0.9])
    drawn = torch.zeros(5, 5)
    drawn[0:4, 0:4] = 0.4
    drawn[0:2, 0:2] = 1.0  # 4 x 4 pixels at threshold 0, its 2 x 2 corner at 0.5 and 0.9
    boxes = boxes_at_thresholds(drawn, [0.0, 0.5, 0.9])
    judge(evaluator, truth(0, Box(0, 0, 4, 4)), boxes)  # IoU 1, 1/4, 1/4
    judge(evaluator, truth(0, Box(0, 0, 2, 3), frame=1), boxes)  # IoU 6/16, 4/6, 4/6
    assert evaluator.accuracy().tolist() == [50, 50, 50]
    judge(evaluator, truth(1, Box(0, 0, 2, 2), video="w"), boxes)
    assert evaluator.macro_accuracy().tolist() == [25, 75, 75]


def counted(frames, thresholds, choice):
    """CorLoc once more, frame by frame: macro mean and mean over frames."""

    def right(frame, position):
        box, true_box = frame[1][position], frame[2]
        if box is None:
            return 0
        sides = [min(box[i + 2], true_box[i + 2]) - max(box[i], true_box[i]) for i in (0, 1)]
        common = max(sides[0], 0) * max(sides[1], 0)
        area = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, true_box)) - common
        return int(common / area >= 0.5)

    of_class = {k: [f for f in frames if f[0] == k] for k in range(3)}
    table = {
        k: [100 * sum(right(f, i) for f in fs) / len(fs) for i in range(len(thresholds))]
        for k, fs in of_class.items()
        if fs
    }
    means = [sum(row[i] for row in table.values()) / len(table) for i in range(len(thresholds))]
    best = {
        "oracle": [means.index(max(means))] * 3,
        "oracle per class": [row.index(max(row)) if (row := table.get(k)) else 0 for k in range(3)],
        "validation": [0] * 3,
    }[choice]
    macro = sum(row[best[k]] for k, row in table.items()) / len(table)
    return macro, 100 * sum(right(f, best[f[0]]) for f in frames) / len(frames)


small = st.integers(0, 4)
corners = st.builds(lambda x, y, w, h: (x, y, x + w + 1, y + h + 1), small, small, small, small)
frames_of_three = st.lists(
    st.tuples(st.integers(0, 2), st.tuples(*[st.none() | corners] * 3), corners), min_size=1, max_size=12
)


@settings(max_examples=100)
@given(frames_of_three, st.sampled_from(["validation", "oracle", "oracle per class"]))
def test_every_table_equals_a_count_frame_by_frame(frames, choice):
    thresholds = [0.1, 0.4, 0.8]
    evaluator = CorLocEvaluator(CLASSES, thresholds)
    for number, (label, boxes, true_box) in enumerate(frames):
        judge(evaluator, truth(label, Box(*true_box), video=f"{label}-{number % 2}"), rows(*boxes))
    result = evaluator.table(choice, 0.1 if choice == "validation" else None)
    macro, micro = counted(frames, thresholds, choice)
    assert result.macro == pytest.approx(macro)
    assert result.micro == pytest.approx(micro)


@settings(max_examples=60)
@given(frames_of_three)
def test_an_oracle_is_an_upper_bound_and_its_own_per_class_a_higher_one(frames):
    evaluator = CorLocEvaluator(CLASSES, [0.1, 0.4, 0.8])
    for label, boxes, true_box in frames:
        judge(evaluator, truth(label, Box(*true_box)), rows(*boxes))
    per_class, oracle = evaluator.table("oracle per class"), evaluator.table("oracle")
    assert per_class.macro >= oracle.macro - 1e-9
    for threshold in (0.1, 0.4, 0.8):
        fixed = evaluator.table("validation", threshold)
        assert oracle.macro >= fixed.macro - 1e-9
        assert all(per_class.per_class[c] >= v for c, v in fixed.per_class.items() if not math.isnan(v))


def test_a_bootstrap_over_videos_spreads_around_the_score_and_is_the_same_every_time():
    first, again = toy().table("validation", 0.2), toy().table("validation", 0.2)
    assert first.interval == again.interval
    # Each draw of 3 out of videos a (1 of 2 right), b (0 of 1) and c (the dog, right): b alone gives 0, c alone 100.
    assert first.interval == (0, 100)


def test_videos_that_are_all_right_leave_no_spread_and_oracles_have_one_too():
    evaluator = CorLocEvaluator(CLASSES, [0.5])
    for video in "abc":
        judge(evaluator, truth(0, video=video), rows(SQUARE))
    assert evaluator.table("oracle").interval == (100, 100)
    assert evaluator.table("oracle per class").interval == (100, 100)


def test_without_frames_every_number_is_missing_and_nothing_is_best():
    evaluator = CorLocEvaluator(CLASSES, [0.5])
    result = evaluator.table("none")
    assert math.isnan(result.macro)
    assert math.isnan(result.micro)
    assert result.num_frames == 0
    with pytest.raises(ValueError, match="the best threshold needs at least one annotated frame"):
        evaluator.table("oracle")
    assert result.interval is None


def test_a_result_as_a_dict_is_strict_json():
    text = json.dumps(toy().table("oracle").as_dict(), allow_nan=False)
    assert json.loads(text)["per_class"] == {"cat": pytest.approx(100 / 3), "dog": 100, "on": None}


def test_a_frame_is_checked_before_it_counts():
    evaluator = CorLocEvaluator(CLASSES, [0.2, 0.6])
    with pytest.raises(ValueError, match=r"overlap must be \[1, 2\], got \[1, 1\]"):
        evaluator.add([truth(0)], torch.ones(1, 1))
    with pytest.raises(ValueError, match="frame 3 of v must have a true box"):
        evaluator.add([truth(0), FrameTruth("v", 3, 0, ())], torch.ones(2, 2))
    with pytest.raises(ValueError, match="label must be below 3, got 3"):
        evaluator.add([truth(0), truth(3)], torch.ones(2, 2))
    assert evaluator.table("validation", 0.2).num_frames == 0


def test_many_frames_at_once_count_like_each_alone():
    together = CorLocEvaluator(CLASSES, [0.2, 0.6])
    frames = [truth(0, video="a"), truth(0, video="a", frame=1), truth(0, video="b"), truth(1, video="c")]
    overlap = torch.tensor([[1, 1], [0, 1], [0, 0], [1, 0]], dtype=torch.float64)
    together.add(frames, overlap)
    assert together.table("oracle").as_dict() == toy().table("oracle").as_dict()
    assert together.videos_per_class() == {"cat": 2, "dog": 1, "on": 0}


def test_the_benchmarks_rule_is_named():
    evaluator = CorLocEvaluator(CLASSES, [0.5], components="largest contour")
    evaluator.add([truth(0)], torch.ones(1, 1))
    result = evaluator.table("oracle")
    assert str(result.protocol) == (
        "CorLoc, inclusive-pixel IoU >= 0.5 on the 224 grid, largest contour, map threshold: oracle"
    )
    stored = result.as_dict()
    assert (stored["inclusive"], stored["components"], stored["threshold_choice"]) == (
        True,
        "largest contour",
        "oracle",
    )


def test_thresholds_that_cannot_be_used_are_named():
    with pytest.raises(ValueError, match=r"thresholds must all differ, got \[0.5, 0.5\]"):
        CorLocEvaluator(CLASSES, [0.5, 0.5])
    with pytest.raises(ValueError, match="expected classes and thresholds, got 3 and 0"):
        CorLocEvaluator(CLASSES, [])
    with pytest.raises(ValueError, match="iou_threshold must be above 0 and at most 1, got 0"):
        CorLocEvaluator(CLASSES, [0.5], iou_threshold=0)
    evaluator = toy()
    with pytest.raises(ValueError, match=r"one of the evaluator's 2 \(0.2 to 0.6\), got 0.5"):
        evaluator.table("validation", 0.5)
    with pytest.raises(ValueError, match="'validation' needs a threshold"):
        evaluator.table("validation")
    with pytest.raises(ValueError, match="'none' needs a threshold"):
        evaluator.table("none")
    with pytest.raises(ValueError, match=r"'oracle' finds its own threshold, got 0.2"):
        evaluator.table("oracle", 0.2)


def test_a_threshold_read_back_from_a_file_still_matches():
    assert toy().table("validation", float(torch.tensor(0.2))).threshold == 0.2
