from hypothesis import given
from hypothesis import strategies as st

from pipelines.evaluation.sampling import spread_out, threshold_grid


def test_the_grid_starts_at_0_and_ends_below_1():
    assert threshold_grid(0.5) == [0.0, 0.5]
    assert threshold_grid(0.3) == [0.0, 0.3, 0.6, 0.9]
    assert threshold_grid(0.01) == [i / 100 for i in range(100)]


@given(st.floats(0.001, 0.5))
def test_every_grid_ascends_and_reaches_1_within_a_step(step):
    grid = threshold_grid(step)
    assert grid[0] == 0
    assert grid == sorted(set(grid))
    assert grid[-1] < 1 <= grid[-1] + step + 1e-5


def test_positions_are_the_middles_of_equal_parts():
    assert spread_out(10, 2) == [2, 7]
    assert spread_out(9, 3) == [1, 4, 7]
    assert spread_out(3, 8) == [0, 1, 2]
    assert spread_out(0, 2) == []


@given(st.integers(0, 500), st.integers(1, 50))
def test_spread_positions_are_distinct_and_inside(count, wanted):
    positions = spread_out(count, wanted)
    assert len(positions) == min(count, wanted)
    assert positions == sorted(set(positions))
    assert all(0 <= position < count for position in positions)
