"""Fill the cache of compiled loops on disk before the tests begin; a helper of conftest.py."""

from __future__ import annotations

import numpy as np

from tcam.boxes.components_single import largest_of_maps
from tcam.boxes.components_sweep import largest_components
from tcam.boxes.contours import best_contours, largest_contours


def compile_loops() -> None:
    """Call what numba compiles at the first call in a new checkout: ten seconds, else a moment."""
    rank = np.zeros((1, 4, 4), np.int16)
    largest_of_maps(rank.astype(np.float32), 1.0, np.ones(1))
    largest_components(rank, 1)
    largest_contours(rank, 1)
    best_contours(rank, 1, np.zeros((1, 1, 4)))
