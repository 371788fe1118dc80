import math

import pytest
import torch

from tcam.metrics.accuracy import BoxAccuracyEvaluator, rank_of_class

OVERLAP = torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.0, 0.3], [0.5, 0.1]], dtype=torch.float64)


def test_max_box_acc_takes_the_best_threshold_of_each_iou():
    evaluator = BoxAccuracyEvaluator(2)
    evaluator.add(OVERLAP)
    found = evaluator.compute()
    # IoU 0.3: 3 of 4 right at the first threshold; 0.5: 2 at the first, 1 at the second; 0.7: 1 at the first.
    assert found.max_box_acc == {0.3: 75, 0.5: 50, 0.7: 25}
    assert found.max_box_acc_v2 == 50
    assert found.num_frames == 4


def test_a_localization_counts_only_where_the_class_is_found_too():
    evaluator = BoxAccuracyEvaluator(2, iou_thresholds=(0.5,))
    evaluator.add(OVERLAP, torch.tensor([0, 4, 0, 5]))
    found = evaluator.compute()
    assert found.top_accuracy == {1: 50, 5: 75}
    assert found.top_localization[1] == {0.5: 25}  # the first frame at the first threshold
    assert found.top_localization[5] == {0.5: 25}  # first and second frame, but at different thresholds
    assert found.max_box_acc == {0.5: 50}


def test_parts_add_up_and_without_classes_there_is_no_top_figure():
    parts, whole = BoxAccuracyEvaluator(2), BoxAccuracyEvaluator(2)
    for row in OVERLAP:
        parts.add(row[None])
    whole.add(OVERLAP)
    assert parts.compute().max_box_acc == whole.compute().max_box_acc
    assert math.isnan(whole.compute().top_accuracy[1])
    assert math.isnan(BoxAccuracyEvaluator(1).compute().max_box_acc_v2)


def test_the_rank_of_a_class_counts_the_more_probable_ones():
    probabilities = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
    assert rank_of_class(probabilities, torch.tensor([0, 0])).tolist() == [2, 0]
    assert rank_of_class(probabilities, torch.tensor([0, 2]), also=(1,)).tolist() == [1, 1]


def test_shapes_and_thresholds_are_checked():
    evaluator = BoxAccuracyEvaluator(2)
    with pytest.raises(ValueError, match=r"overlap must be \[N, 2\], got \[1, 3\]"):
        evaluator.add(torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"class_rank must be \[1\], got \[2\]"):
        evaluator.add(torch.ones(1, 2), torch.zeros(2))
    with pytest.raises(ValueError, match=r"IoUs in 0..1, got 2 and \(0,\)"):
        BoxAccuracyEvaluator(2, iou_thresholds=(0,))
