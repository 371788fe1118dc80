"""The form without numba against the compiled sweep, and its parts by hand; `test_extract.py` runs on both, too."""

import numpy as np
import pytest

from tcam.boxes import components_single as largest
from tcam.boxes import components_sweep as sweep
from tcam.boxes import hills


def random_ranks(generator: np.random.Generator) -> tuple[np.ndarray, int]:
    """A small map full of plateaus, rings and equally large components, and its number of layers."""
    height, width = generator.integers(1, 14, 2)
    layers = int(generator.integers(1, 7))
    ranks = generator.integers(0, layers + 1, (height, width))
    return np.where(generator.random((height, width)) < generator.random(), ranks, 0).astype(np.int16), layers


def test_every_layer_of_maps_full_of_ties_has_the_box_of_the_compiled_sweep():
    generator = np.random.default_rng(0)
    for _ in range(1500):
        ranks, layers = random_ranks(generator)
        np.testing.assert_array_equal(
            hills.largest_components(ranks[None], layers), sweep.largest_components(ranks[None], layers)
        )


def largest_of_masks(masks: np.ndarray) -> np.ndarray:
    return largest.largest_of_maps(masks.astype(np.float32), 1.0, np.ones(len(masks)))


def test_the_largest_component_of_masks_of_any_width_is_that_of_the_sweep():
    generator = np.random.default_rng(1)
    for width in (*range(1, 34), 224):
        share = generator.random((60, 1, 1))
        masks = generator.random((60, 9, width)) < share
        masks[::3] = masks[::3].repeat(8, axis=2)[:, :, :width]  # stretches longer than a word
        expected = sweep.largest_components(masks.astype(np.int16), 1)[:, 0]
        np.testing.assert_array_equal(largest_of_masks(masks), expected)
    assert largest_of_masks(np.zeros((0, 3, 3), np.bool_)).shape == (0, 4)


def winding(side: int) -> np.ndarray:
    """A way of one pixel that goes to and fro and climbs by one rank every few steps."""
    way: list[tuple[int, int]] = []
    for y in range(0, side, 2):
        row = range(side) if y % 4 == 0 else range(side - 1, -1, -1)
        way += [*((y, x) for x in row), (y + 1, row[-1])]
    ranks = np.zeros((side + 1, side), np.int16)
    ranks[tuple(np.transpose(way))] = 1 + np.arange(len(way)) // 9
    return ranks


@pytest.mark.parametrize("upside_down", [False, True])
def test_long_ways_and_long_plateaus_are_followed_to_their_end(upside_down):
    ranks = winding(41)
    assert ranks.max() > 80
    if upside_down:
        ranks = np.where(ranks > 0, ranks.max() + 1 - ranks, 0).astype(np.int16)
    for some in (ranks, (ranks > 0).astype(np.int16), np.maximum(ranks, 3)):
        layers = int(some.max())
        expected = sweep.largest_components(some[None], layers)
        np.testing.assert_array_equal(hills.largest_components(some[None], layers), expected)
        np.testing.assert_array_equal(largest_of_masks(some[None] > 0), expected[:, 0])


def test_hills_stand_in_the_order_in_which_they_join_and_bumps_share_a_place():
    heights = np.array([9, 5, 7, 4])
    passes = np.array([[0, 2, 1], [3, 3, 2], [4, 3, 2]])  # 3 is a bump of 0; 2 joins at 3, then 1 at 2
    place, gap = hills.line_up(heights, passes)
    assert place.tolist() == [0, 2, 1, 0]
    assert gap.tolist() == [0, 3, 2]


def test_the_highest_pass_between_two_hills_is_taken():
    plane = np.pad(np.array([[5, 1, 4], [5, 3, 4]], np.int16), 1)
    hill, heights = hills.find_hills(plane)
    assert heights.tolist() == [5, 4]
    low = hills.find_passes(plane, hill)
    assert low.tolist() == [[0], [1], [3]]
