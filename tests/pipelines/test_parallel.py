import multiprocessing
import os
import signal
import time

import pytest

from pipelines.parallel import ItemFailure, ordered_map
from tcam.errors import VideoError


def work(item: int) -> int:
    """Square small numbers; negative ones misbehave."""
    if item == -1:
        raise VideoError("x.mp4: broken\nhere")
    if item == -2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == -3:
        time.sleep(600)
    if item == -4:
        raise KeyError("oops")
    if item == 0:
        time.sleep(0.5)
    return item * item


def run(items, workers, **options):
    return list(ordered_map(work, items, workers=workers, time_limit_s=2.0, progress=None, **options))


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order_and_errors_in_place(workers):
    results = run([0, 1, -1, 3, -4, 5], workers)
    assert results == [0, 1, ItemFailure(2, "x.mp4: broken here"), 9, ItemFailure(4, "KeyError: 'oops'"), 25]


def test_a_crash_and_a_hang_fail_alone_and_leave_no_process():
    begun = time.monotonic()
    results = run([1, -2, 2, -3, 3, 4], 2)
    assert [results[i] for i in (0, 2, 4, 5)] == [1, 4, 9, 16]
    assert results[1] == ItemFailure(1, "its process ended (killed by SIGSEGV)")
    assert results[3] == ItemFailure(3, "it took longer than its time limit and was stopped")
    assert time.monotonic() - begun < 300
    assert multiprocessing.active_children() == []


def test_leaving_early_ends_the_children():
    results = ordered_map(work, [1, 2, -3, 3], workers=2, time_limit_s=lambda item: 50.0 + item, progress=None)
    assert next(results) == 1
    results.close()
    assert multiprocessing.active_children() == []


def test_progress_counts_up_to_all():
    seen = []
    list(ordered_map(work, [1, 2, 3], workers=0, time_limit_s=1, progress=lambda *pair: seen.append(pair)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_nothing_to_do_starts_nothing():
    assert run([], 2) == []
    with pytest.raises(ValueError, match="workers must be 0 or more"):
        ordered_map(work, [1], workers=-1, time_limit_s=1, progress=None)
