import pytest

from pipelines.run.progress import Progress


def test_the_rest_takes_as_long_as_the_rate_says():
    state = Progress(done=30, failed=2, total=120, elapsed_s=20.0, slowest="a.mp4", slowest_s=3.21)
    assert state.rate_per_s == pytest.approx(1.5)
    assert state.eta_s == pytest.approx(60.0)
    assert str(state) == "2 failed, 1.5/s, 1:00 left, slowest a.mp4 3.2 s"


def test_before_the_first_item_nothing_is_divided_by_zero():
    state = Progress(done=0, failed=0, total=3, elapsed_s=0.0)
    assert state.rate_per_s == 0
    assert state.eta_s > 1e6
