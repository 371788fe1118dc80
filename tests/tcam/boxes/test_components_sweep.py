"""The sweep over all thresholds against components that SciPy labels threshold by threshold."""

import numpy as np
import pytest
from scipy import ndimage

from tcam.boxes.components_single import largest_of_maps
from tcam.boxes.components_sweep import largest_components


def labelled_boxes(rank: np.ndarray, layers: int) -> np.ndarray:
    """The box of the largest component of each layer, by labelling each; of equally large ones the first met."""
    boxes = np.full((layers, 4), np.nan)
    for layer in range(layers):
        labels, count = ndimage.label(rank > layer, structure=np.ones((3, 3)))
        if count:
            sizes = np.bincount(labels.ravel())[1:]
            y, x = np.nonzero(labels == 1 + sizes.argmax())  # labels follow the reading order
            boxes[layer] = x.min(), y.min(), x.max() + 1, y.max() + 1
    return boxes


def random_ranks(generator: np.random.Generator) -> tuple[np.ndarray, int]:
    """A small map full of plateaus, rings and equally large components, and its number of layers."""
    height, width = generator.integers(1, 14, 2)
    layers = int(generator.integers(1, 7))
    ranks = generator.integers(0, layers + 1, (height, width))
    return np.where(generator.random((height, width)) < generator.random(), ranks, 0).astype(np.int16), layers


def test_every_layer_of_maps_full_of_ties_has_the_box_of_its_largest_component():
    generator = np.random.default_rng(0)
    for _ in range(600):
        ranks, layers = random_ranks(generator)
        np.testing.assert_array_equal(largest_components(ranks[None], layers)[0], labelled_boxes(ranks, layers))


def winding(side: int) -> np.ndarray:
    """A zigzag path one pixel wide that climbs by one rank every few steps."""
    path: list[tuple[int, int]] = []
    for y in range(0, side, 2):
        row = range(side) if y % 4 == 0 else range(side - 1, -1, -1)
        path += [*((y, x) for x in row), (y + 1, row[-1])]
    ranks = np.zeros((side + 1, side), np.int16)
    ranks[tuple(np.transpose(path))] = 1 + np.arange(len(path)) // 9
    return ranks


@pytest.mark.parametrize("upside_down", [False, True])
def test_long_paths_and_long_plateaus_are_followed_to_their_end(upside_down):
    ranks = winding(41)
    assert ranks.max() > 80
    if upside_down:
        ranks = np.where(ranks > 0, ranks.max() + 1 - ranks, 0).astype(np.int16)
    for some in (ranks, (ranks > 0).astype(np.int16), np.maximum(ranks, 3)):
        layers = int(some.max())
        expected = labelled_boxes(some, layers)
        np.testing.assert_array_equal(largest_components(some[None], layers)[0], expected)
        kept = (some[None] > 0).astype(np.float32)
        np.testing.assert_array_equal(largest_of_maps(kept, 1.0, np.ones(1))[0], expected[0])
