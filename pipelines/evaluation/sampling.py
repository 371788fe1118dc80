"""Which frames and map thresholds an evaluation uses."""

from __future__ import annotations

import math


def threshold_grid(step: float) -> list[float]:
    """Return the map thresholds 0, step, 2 step, ... below 1."""
    return [round(i * step, 6) for i in range(math.ceil(1 / step - 1e-9))]


def spread_out(count: int, wanted: int) -> list[int]:
    """Return at most ``wanted`` evenly spaced positions out of ``count``: the middles of equal parts."""
    if count <= wanted:
        return list(range(count))
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]
