"""The sweep over contours against OpenCV itself, one threshold after the other."""

import numpy as np
import pytest
import torch

from tcam.boxes.components_sweep import largest_components
from tcam.boxes.contours import best_contours, largest_contours
from tests.helpers.opencv import contour_boxes, pixel_iou


def random_levels(generator: np.random.Generator) -> tuple[np.ndarray, int]:
    """A small map full of specks, lines, rings and equally large components, and its number of levels."""
    height, width = generator.integers(1, 14, 2)
    layers = int(generator.integers(1, 5))
    levels = generator.integers(0, layers + 1, (height, width))
    empty = generator.random((height, width)) < generator.random()
    return np.where(empty & (generator.random() < 0.5), 0, levels).astype(np.int16), layers


def test_of_equally_large_contours_the_one_that_opencv_lists_first_wins():
    generator = np.random.default_rng(0)
    differ = 0
    for _ in range(1500):
        levels, layers = random_levels(generator)
        found = largest_contours(levels[None], layers)[0]
        for cut in range(layers):
            (box,) = contour_boxes(levels, cut, every=False)
            differ += box != tuple(np.nan_to_num(found[cut]).tolist())
    assert differ == 0


def test_the_best_of_all_contours_and_holes_is_that_of_opencv():
    generator = np.random.default_rng(1)
    differ = 0
    for _ in range(1500):
        levels, layers = random_levels(generator)
        y, x = (np.sort(generator.integers(0, side, (2, 2))).astype(float) for side in levels.shape)
        truth = [(x[i, 0], y[i, 0], x[i, 1], y[i, 1]) for i in range(2)]
        found = best_contours(levels[None], layers, np.array(truth)[None])[0]
        for cut in range(layers):
            boxes = contour_boxes(levels, cut, every=True)
            best = max(pixel_iou(box, true) for box in boxes for true in truth)
            differ += best != max(pixel_iou(np.nan_to_num(found[cut]), true) for true in truth)
            differ += tuple(np.nan_to_num(found[cut]).tolist()) not in boxes
    assert differ == 0


@pytest.mark.parametrize("gap", [2, 3])
def test_a_layer_in_which_nearly_every_pixel_joins_components_equals_opencv(gap):
    levels = np.ones((60, 50), np.int16)
    levels[::gap] = 2
    levels[1::2, ::gap] = 2 if gap == 3 else 1
    truth = np.array([[[3.0, 2.0, 30.0, 40.0]]])
    for found, every in (largest_contours(levels[None], 2), False), (best_contours(levels[None], 2, truth), True):
        for cut in range(2):
            boxes = contour_boxes(levels, cut, every=every)
            best = max(pixel_iou(box, truth[0, 0]) for box in boxes)
            assert pixel_iou(found[0, cut], truth[0, 0]) == best


@pytest.mark.parametrize("smooth", [True, False], ids=["smooth", "noise"])
def test_maps_of_full_size_equal_opencv_at_every_level(smooth):
    generator = np.random.default_rng(2)
    field = generator.random((7, 7) if smooth else (90, 120))
    if smooth:
        field = np.kron(field, np.ones((16, 16)))
        for axis in (0, 1):
            field = sum(np.roll(field, step, axis) for step in range(-8, 9))
    levels = ((field - field.min()) / np.ptp(field) * 255).astype(np.int16)
    found = largest_contours(levels[None], 255)[0]
    for cut in range(0, 255, 1 if smooth else 6):
        assert contour_boxes(levels, cut, every=False) == [tuple(found[cut].tolist())]


def test_a_hole_reaches_one_pixel_further_and_one_at_the_edge_is_none():
    levels = np.ones((1, 8, 9), np.int16)
    levels[0, 3:5, 4:6] = 0
    truth = np.array([[[3.0, 2.0, 7.0, 6.0]]])
    assert best_contours(levels, 1, truth).tolist() == [[[3, 2, 7, 6]]]
    levels[0, 3:5, 4:] = 0  # now open to the right
    assert best_contours(levels, 1, truth).tolist() == [[[0, 0, 8, 7]]]


def test_a_frame_with_fewer_true_boxes_than_others_has_nan_there():
    levels = np.zeros((2, 9, 9), np.int16)
    levels[:, 1:3, 1:3] = levels[:, 5:8, 5:8] = 1
    nan = [np.nan] * 4
    truth = np.array([[[1.0, 1, 3, 3], nan], [[20.0, 20, 21, 21], [5, 5, 8, 8]]])
    assert best_contours(levels, 1, truth).tolist() == [[[1, 1, 3, 3]], [[5, 5, 8, 8]]]


@pytest.fixture
def set_threads():
    """Give torch's setter of threads, and put them back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_any_number_of_threads_gives_the_same_boxes(set_threads):
    levels = np.random.default_rng(3).integers(0, 9, (7, 40, 50)).astype(np.int16)
    truth = np.array([[5.0, 5, 20, 30]] * 7)[:, None]
    found = []
    for threads in 1, 3:
        set_threads(threads)
        found.append(
            [sweep(levels, 8) for sweep in (largest_contours, largest_components)] + [best_contours(levels, 8, truth)]
        )
    for one, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one, three)
