import multiprocessing
import os
import pickle
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pipelines.parallel.map import ItemFailure, ordered_map
from pipelines.parallel.placement import Placement
from pipelines.run.progress import Progress
from tcam.errors import TcamError
from tests.helpers.python_processes import python_process
from tests.helpers.work import cannot_start, start, start_naming_parents, start_noting
from tests.pipelines.run.test_signals import has_ended

BACK_ENDS = [
    pytest.param(Placement(), id="here"),
    pytest.param(Placement(2), id="processes"),
    pytest.param(Placement(2, ray=True), id="ray tasks", marks=[pytest.mark.ray, pytest.mark.slow]),
    pytest.param(Placement(ray=True, actors=2), id="ray actors", marks=[pytest.mark.ray, pytest.mark.slow]),
]
OTHERS = BACK_ENDS[1:]
"""The back ends that work in processes of their own."""


def run(items, placement, *, begin=start, **options):
    options = {"time_limit_s": 3.0, "holds_model": placement.actors is not None, **options}
    return list(ordered_map(begin, items, placement=placement, **options))


@pytest.mark.parametrize("placement", BACK_ENDS)
def test_results_come_in_order_and_errors_in_place(placement, ray_kept):
    results = run([0, 1, -1, 3, -4, 5], placement)
    assert results == [0, 1, ItemFailure(2, "x.mp4: broken here"), 9, ItemFailure(4, "KeyError: 'oops'"), 25]


@pytest.mark.slow
@pytest.mark.parametrize("placement", OTHERS)
def test_a_crash_a_hang_and_a_hoard_fail_alone_and_leave_no_process(placement, ray_kept):
    limits = {"time_limit_s": lambda item: 3.0 if item == -3 else 60.0, "memory_limit_mb": 900}
    results = run([1, -2, 2, -3, 3, -5, 4], placement, **limits)
    assert [results[i] for i in (0, 2, 4, 6)] == [1, 4, 9, 16]
    assert results[1] == ItemFailure(1, "its process ended (killed by SIGSEGV), twice")
    assert results[3] == ItemFailure(3, "it took longer than its time limit and was stopped")
    assert results[5] == ItemFailure(5, "it needed more than 900 MB of memory and was stopped")
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("placement", OTHERS)
def test_an_item_whose_worker_was_killed_is_begun_once_more_and_no_other(placement, ray_kept, tmp_path):
    assert run([1, 2, 3, 4, 5], placement, begin=partial(start_noting, tmp_path)) == [1, 2, 3, 4, 5]
    begun = sorted(path.name for path in tmp_path.glob("item-*"))
    assert begun == ["item-1-0", "item-2-0", "item-3-0", "item-3-1", "item-4-0", "item-5-0"]
    assert len(list(tmp_path.glob("start-*"))) <= 3  # two workers and the one that took the dead one's place


@pytest.mark.slow
@pytest.mark.parametrize("placement", BACK_ENDS)
def test_results_wait_for_their_reader_within_bounds(placement, ray_kept, tmp_path):
    results = ordered_map(
        partial(start_noting, tmp_path),
        range(100, 200),
        placement=placement,
        time_limit_s=60,
        holds_model=bool(placement.actors),
    )
    assert list(tmp_path.iterdir()) == []  # nothing begins before the first result is asked for
    assert next(results) == 100
    time.sleep(0.5)
    assert next(results) == 101
    time.sleep(0.5)
    assert len(list(tmp_path.glob("item-*"))) <= 2 + 4 * 2
    results.close()
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="each child starts by itself")
def test_children_have_one_parent_that_has_imported_what_they_need():
    import pipelines.pipeline  # noqa: F401

    before, after = (set(run([1, 2], Placement(2), begin=start_naming_parents)) for _ in range(2))
    (parent, has_imported), *others = before | after
    assert not others
    assert has_imported
    assert parent != os.getpid()


@pytest.mark.parametrize("placement", OTHERS)
def test_leaving_early_ends_the_workers(placement, ray_kept):
    results = ordered_map(start, [1, 2, -3, 3], placement=placement, time_limit_s=lambda item: 50.0 + item)
    assert next(results) == 1
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 10
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("placement", OTHERS)
def test_workers_that_cannot_start_end_the_work(placement, ray_kept):
    holds = {"holds_model": True} if placement.ray else {}
    with pytest.raises(TcamError, match="no weights here"):
        run([1, 2], placement, begin=cannot_start, **holds)


@pytest.mark.parametrize("placement", BACK_ENDS)
def test_progress_counts_failures_and_names_the_slowest(placement, ray_kept):
    seen = []
    run([1, -1, 0, 2], placement, progress=seen.append)
    assert [(state.done, state.total) for state in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert seen[-1].failed == 1
    assert seen[-1].slowest_s > 0
    if not placement.ray:
        assert seen[-1].slowest == "0"


@pytest.mark.ray
@pytest.mark.slow
def test_an_object_store_that_is_too_small_and_a_gpu_that_is_not_there(small_ray):
    from pipelines.parallel.cluster import ClusterError
    from pipelines.parallel.ray import RayPool

    with pytest.raises(
        ClusterError, match=r"object store is too small: the model needs 90 MB, a node has 80 MB; start"
    ):
        RayPool(bytes(60 * 2**20), Placement(ray=True), items=3, holds_model=True)
    with pytest.raises(ClusterError, match=r"no room for one actor of 1 CPU and 0\.5 GPU: it has 2 CPU and 0 GPU; "):
        RayPool(b"", Placement(ray=True, gpus_per_actor=0.5), items=3, holds_model=True)


def test_progress_says_rate_and_time_left():
    text = str(Progress(done=30, failed=2, total=120, elapsed_s=60.0, slowest="a/b.mp4", slowest_s=12.34))
    assert text == "2 failed, 0.5/s, 3:00 left, slowest a/b.mp4 12.3 s"


def test_nothing_to_do_starts_nothing():
    assert run([], Placement(2)) == []
    with pytest.raises(ValueError, match="workers must be 0 or more"):
        Placement(-1)


def test_work_travels_as_it_is():
    assert pickle.loads(pickle.dumps(Placement(1, ray=True, actors=3))) == Placement(1, ray=True, actors=3)


LONG_WORK = """
import sys
from functools import partial
from pathlib import Path
from pipelines.parallel.map import ordered_map
from pipelines.parallel.placement import Placement
from pipelines.run.signals import Interrupted, raising_signals
from tests.helpers.work import start_waiting
with raising_signals():
    try:
        begin, limits = partial(start_waiting, {notes!r}), {{"time_limit_s": 600, "holds_model": {holds}}}
        list(ordered_map(begin, [1, 2], placement={placement}, **limits))
    except Interrupted as interrupt:
        sys.exit(interrupt.exit_code)
"""


TASKS, ACTORS = Placement(2, ray=True), Placement(ray=True, actors=2)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
@pytest.mark.parametrize(
    "kind", ["processes", *(pytest.param(kind, marks=pytest.mark.ray) for kind in ("ray tasks", "ray actors"))]
)
def test_a_signal_leaves_no_process(kind, number, code, tmp_path, request):
    """With every signal Ray once belongs to the command and ends with it, and once to others and stays."""
    if kind == "processes":
        placement, cluster = Placement(2), None
    else:
        pytest.importorskip("ray")
        placement, cluster = (TASKS if kind == "ray tasks" else ACTORS), None
        if (kind == "ray actors") != (number == signal.SIGTERM):
            cluster = request.getfixturevalue("ray_cluster")
            placement = replace(placement, address=cluster.address)
    notes = tmp_path / "notes"
    notes.mkdir()
    mark = f"tcam-test-{os.getpid()}-{number}-{kind}"
    environment = {**os.environ, "TCAM_MARK": mark}
    code_of_work = LONG_WORK.format(placement=placement, holds=placement.actors is not None, notes=str(notes))
    process = python_process(code_of_work, env=environment)
    try:
        deadline = time.monotonic() + 300
        while len(list(notes.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(list(notes.iterdir())) == 2
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=30) == code
        assert time.monotonic() - began < 10
    finally:
        process.kill()
        process.wait()
    assert all(has_ended(int(path.name.removeprefix("pid-"))) for path in notes.iterdir())
    deadline = time.monotonic() + 15
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    # Where nobody is left to end them, two helpers of Ray itself stay for a while.
    own = ("ray::DashboardAgent", "ray::RuntimeEnvAgent") if number == signal.SIGKILL else ()
    assert [name for name in left if not name.startswith(own or "\0")] == []
    assert cluster is None or cluster.head_node.remaining_processes_alive()


def marked(mark: str) -> list[str]:
    """The processes whose environment holds the mark: those of Ray inherit it too."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
        except OSError:
            continue
    return found
