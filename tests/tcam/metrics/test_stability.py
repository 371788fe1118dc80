import math

import pytest
import torch

from tcam.metrics.stability import PresenceEvaluator, StabilityEvaluator

NOTHING = [math.nan] * 4


def judged(boxes, truth, overlap=None, videos=None):
    evaluator = StabilityEvaluator()
    count = len(boxes)
    evaluator.add(
        videos or ["v"] * count,
        torch.tensor(boxes, dtype=torch.float64),
        torch.tensor(truth, dtype=torch.float64),
        torch.tensor([1.0] * count if overlap is None else overlap),
    )
    return evaluator.compute()


def test_a_constant_misfit_is_perfectly_steady():
    found = judged([[1, 0, 11, 10], [6, 0, 16, 10]], [[0, 0, 10, 10], [5, 0, 15, 10]])
    assert (found.fragment, found.centre, found.scale_ratio) == (0, 0, 0)


def test_a_box_that_shakes_is_measured_in_sizes_of_the_true_box():
    # The centre is off by +2 and -2 of 20 pixels: a deviation of 10 % of the width.
    found = judged([[2, 0, 22, 10], [-2, 0, 18, 10]], [[0, 0, 20, 10]] * 2)
    assert found.centre == pytest.approx(10)
    assert found.scale_ratio == pytest.approx(0)


def test_a_box_that_breathes_changes_scale_and_one_that_is_squeezed_the_ratio():
    breathing = judged([[-5, -5, 15, 15], [0, 0, 10, 10]], [[0, 0, 10, 10]] * 2)  # twice as large, then right
    assert breathing.scale_ratio == pytest.approx(50)
    assert breathing.centre == 0
    squeezed = judged([[-5, 2.5, 15, 7.5], [0, 0, 10, 10]], [[0, 0, 10, 10]] * 2)  # same area, ratio 4, then 1
    assert squeezed.scale_ratio == pytest.approx(150)


def test_fragments_count_the_steps_where_right_turns_wrong_or_back():
    square = [[0, 0, 10, 10]] * 5
    assert judged(square, square, [1, 1, 0.2, 0.2, 0.7]).fragment == pytest.approx(50)  # 2 of 4 steps


def test_videos_count_alike_and_frames_without_a_box_are_left_out():
    boxes = [[2, 0, 22, 10], [-2, 0, 18, 10], NOTHING, [0, 0, 20, 10], [0, 0, 20, 10]]
    found = judged(boxes, [[0, 0, 20, 10]] * 5, [1, 1, 0, 1, 1], ["a", "a", "a", "b", "b"])
    assert found.centre == pytest.approx(5)
    assert found.fragment == pytest.approx(25)


def test_one_frame_of_a_video_says_nothing():
    found = judged([[0, 0, 1, 1], [0, 0, 1, 1]], [[0, 0, 1, 1]] * 2, videos=["a", "b"])
    assert all(math.isnan(value) for value in (found.fragment, found.centre, found.scale_ratio))


def test_batches_of_a_video_add_up():
    together = judged([[2, 0, 22, 10], [-2, 0, 18, 10], [0, 0, 20, 10]], [[0, 0, 20, 10]] * 3, [1, 0, 1])
    evaluator = StabilityEvaluator()
    for box, overlap in (([2.0, 0, 22, 10], 1.0), ([-2.0, 0, 18, 10], 0.0), ([0.0, 0, 20, 10], 1.0)):
        evaluator.add(["v"], torch.tensor([box]), torch.tensor([[0.0, 0, 20, 10]]), torch.tensor([overlap]))
    assert evaluator.compute() == together


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"expected boxes and truth \[1, 4\] and overlap \[1\], got \[2, 4\]"):
        StabilityEvaluator().add(["v"], torch.ones(2, 4), torch.ones(2, 4), torch.ones(2))
    with pytest.raises(ValueError, match=r"must both be \[N\], got \[2\], \[1\]"):
        PresenceEvaluator().add(torch.ones(2).bool(), torch.ones(1).bool())


def test_presence_is_told_from_false_alarms():
    evaluator = PresenceEvaluator()
    evaluator.add(torch.tensor([True, False, True, True]), torch.tensor([True, True, True, False]))
    evaluator.add(torch.tensor([True, False]), torch.tensor([True, False]))
    assert evaluator.compute() == (75, 50)
    only = PresenceEvaluator()
    only.add(torch.tensor([True]), torch.tensor([True]))
    found, false_alarms = only.compute()
    assert found == 100
    assert math.isnan(false_alarms)
