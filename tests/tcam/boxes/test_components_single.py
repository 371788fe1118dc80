"""The search at one threshold against the sweep over all of them."""

import numpy as np

from tcam.boxes.components_single import largest_of_maps
from tcam.boxes.components_sweep import largest_components


def largest_of_masks(masks: np.ndarray) -> np.ndarray:
    return largest_of_maps(masks.astype(np.float32), 1.0, np.ones(len(masks)))


def test_the_largest_component_of_masks_of_any_width_is_that_of_the_sweep():
    generator = np.random.default_rng(1)
    for width in (*range(1, 34), 224):
        share = generator.random((60, 1, 1))
        masks = generator.random((60, 9, width)) < share
        masks[::3] = masks[::3].repeat(8, axis=2)[:, :, :width]  # stretches longer than a word
        expected = largest_components(masks.astype(np.int16), 1)[:, 0]
        np.testing.assert_array_equal(largest_of_masks(masks), expected)


def test_no_maps_have_no_boxes():
    assert largest_of_masks(np.zeros((0, 3, 3), np.bool_)).shape == (0, 4)
