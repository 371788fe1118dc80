import math

import pytest
import torch

from tcam.metrics.rules import match_boxes, match_maps, visible_boxes
from tcam.types import Box, FrameTruth


def frame(*boxes: Box) -> FrameTruth:
    return FrameTruth("v", 0, 0, boxes)


def squares() -> torch.Tensor:
    """A map of 8 x 8 with a bright square, and a larger pale one."""
    one = torch.zeros(1, 8, 8)
    one[0, 0:2, 0:2] = 1.0
    one[0, 4:8, 4:8] = 0.5
    return one


def test_boxes_come_in_pixels_of_the_original_frame_with_their_overlap():
    found = match_maps(squares(), [0.1, 0.7, 1.0], [frame(Box(0, 0, 20, 40))], (160, 80))
    assert found.boxes[0, :2].tolist() == [[40, 80, 80, 160], [0, 0, 20, 40]]
    assert found.boxes[0, 2].isnan().all()
    assert found.value.tolist() == [[0, 1, 0]]


def test_the_best_of_several_true_boxes_counts_and_is_named():
    truth = frame(Box(0, 0, 2, 2), Box(4, 4, 8, 6))
    found = match_maps(squares(), [0.1, 0.7], [truth], (8, 8))
    assert found.value.tolist() == [[0.5, 1]]
    assert found.which.tolist() == [[1, 0]]


def test_frames_with_one_and_with_three_true_boxes_go_together():
    truth = [frame(Box(0, 0, 2, 2)), frame(Box(5, 5, 6, 6), Box(7, 0, 8, 1), Box(0, 0, 2, 2))]
    found = match_maps(squares().repeat(2, 1, 1), [0.7], truth, (8, 8))
    assert found.value.tolist() == [[1], [1]]
    assert found.which.tolist() == [[0], [2]]


def test_truth_is_cut_to_the_picture_and_what_lies_outside_is_left_out():
    boxes = visible_boxes([frame(Box(-4, -4, 2, 2), Box(9, 0, 12, 4)), frame(Box(6, 6, 30, 30))], (8, 8))
    assert boxes[0, 0].tolist() == [0, 0, 2, 2]
    assert boxes[0, 1].isnan().all()
    assert boxes[1, 0].tolist() == [6, 6, 8, 8]
    assert match_maps(squares(), [0.7], [frame(Box(-4, -4, 2, 2))], (8, 8)).value.tolist() == [[1]]
    assert match_maps(squares(), [0.7], [frame(Box(20, 20, 30, 30))], (8, 8)).value.tolist() == [[0]]


def test_a_frame_without_truth_overlaps_nothing():
    assert match_maps(squares(), [0.7], [frame()], (8, 8)).value.tolist() == [[0]]


def test_the_benchmarks_rule_counts_on_its_grid_and_gives_boxes_in_original_pixels():
    maps = torch.zeros(1, 224, 224)
    maps[0, 50:100, 30:90] = 1
    truth = frame(Box(60, 50, 180, 100))  # of a frame twice as wide as the grid
    found = match_maps(maps, [0.5, 1.0], [truth], (224, 448), components="largest contour")
    assert found.value[0, 0] == 1
    assert found.boxes[0, 0].tolist() == [60, 50, 180, 100]
    assert found.boxes[0, 1].isnan().all()
    assert found.value[0, 1] == 0


def test_boxes_of_no_map_are_judged_by_either_rule():
    whole = torch.tensor([[[0.0, 0, 448, 224]]])
    truth = [frame(Box(0, 0, 448, 112))]
    assert match_boxes(whole, truth, (224, 448)).value.item() == 0.5
    on_grid = match_boxes(whole, truth, (224, 448), components="largest contour").value.item()
    assert on_grid == pytest.approx(224 * 113 / (224 * 224 + 113))  # truth may end at 224, a box at 223


def test_nothing_found_overlaps_nothing():
    nothing = torch.full((1, 1, 4), math.nan)
    assert match_boxes(nothing, [frame(Box(0, 0, 4, 4))], (8, 8)).value.item() == 0
