"""What the benchmarks share: on a clock that tests set, with figures computed by hand."""

import math
import re
import subprocess
import sys

import pytest

from tests.helpers.documents import REPO
from tests.helpers.scripts import load_script


class Clock:
    """Stands still until some work moves it on."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s

    def work(self, *seconds, result=None):
        """Return work that takes these seconds, one call after the other."""
        left = iter(seconds)

        def run():
            self.now_s += next(left)
            return result

        return run


@pytest.fixture
def clock():
    return Clock()


def test_cases_take_turns_and_warm_up_rounds_do_not_count(bench, clock):
    order = []
    cases = {name: lambda name=name: order.append(name) for name in ("ours", "peer")}
    bench.measure(cases, 2, warm_up=1, clock=clock)
    assert order == ["ours", "peer"] * 3
    timings, results = bench.measure({"ours": clock.work(100, 1, 5, 3, result="map")}, 3, clock=clock)
    assert timings.seconds == {"ours": [1, 5, 3]}
    assert timings.medians() == {"ours": 3}
    assert results == {"ours": "map"}


def test_a_ratio_is_the_median_of_the_ratios_of_rounds(bench, clock):
    cases = {"ours": clock.work(1, 2, 4), "peer": clock.work(6, 4, 20)}
    timings, _ = bench.measure(cases, 3, warm_up=0, clock=clock)
    assert timings.ratio("peer", "ours") == 5  # of 6, 2 and 5; that of the medians is 6 / 2
    timings.add("peer", 4)
    with pytest.raises(ValueError, match="zip"):
        timings.ratio("peer", "ours")


def test_results_are_those_of_the_last_round(bench):
    values = iter(range(3))
    assert bench.measure({"count": lambda: next(values)}, 2)[1] == {"count": 2}


def test_no_rounds_are_an_error(bench):
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        bench.measure({"work": lambda: None}, 0)


def test_seconds_are_those_of_one_unit_of_the_work(bench, clock):
    timings = bench.Timings(clock)
    assert timings.time("batch", clock.work(6, result="maps"), per=3) == "maps"
    timings.add("batch", 4)
    assert timings.seconds == {"batch": [2, 4]}
    assert timings.median("batch") == 3
    assert bench.timed(clock.work(5, result="map"), clock) == ("map", 5)


def test_the_processor_clock_does_not_count_waiting(bench):
    import time

    cases = {"wait": lambda: time.sleep(0.05)}
    waited, _ = bench.measure(cases, 1, warm_up=0)
    worked, _ = bench.measure(cases, 1, warm_up=0, clock=time.thread_time)
    assert worked.median("wait") < 0.03 < 0.05 <= waited.median("wait")
    assert bench.wall_clock("cpu") is time.perf_counter


def test_a_table_is_markdown(bench):
    assert bench.table_head("maps", "boxes", "ms", text_columns=2) == "| maps | boxes | ms |\n|---|---|---:|"
    assert bench.table_head("side", "ms", text_columns=0) == "| side | ms |\n|---:|---:|"
    assert bench.table_row("real", 2, "") == "| real | 2 |  |"


def test_the_header_names_commit_machine_threads_and_versions(bench):
    import torch

    line = bench.header("6 maps", "3 rounds", packages=("absent", "numpy"))
    assert line.startswith(f"commit {bench.commit()}, ")
    found = re.search(
        r"(\d+) processors, (\d+) torch threads?, Python 3\.\d+\.\d+, torch (\S+), numpy \S+, load ", line
    )
    assert found is not None
    assert int(found[2]) == torch.get_num_threads()
    assert found[3] == torch.__version__
    assert line.endswith("; 6 maps; 3 rounds")


def test_the_commit_is_that_of_the_checkout(bench, tmp_path, monkeypatch):
    command = ["git", "rev-parse", "--short", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPO).stdout.strip()
    monkeypatch.chdir(tmp_path)  # of the script's checkout, not of the present folder
    assert bench.commit().removesuffix("-dirty") == (head or "unknown")
    monkeypatch.setattr(bench, "REPO", tmp_path)
    assert bench.commit() == "unknown"


@pytest.mark.parametrize(
    ("values", "text"),
    [([], "–"), ([None, math.nan], "–"), ([3.0], "3.0"), ([2.0, 2.0], "2.0"), ([1.0, None, 3.0], "2.0 ± 1.4")],
)
def test_a_spread_is_written_only_where_there_is_one(bench, values, text):
    assert bench.spread(values) == text


def test_a_spread_has_digits_and_a_sign_as_asked(bench):
    assert bench.spread([0.25, 0.5], digits=3) == "0.375 ± 0.177"
    assert bench.spread([1.0, 3.0], sign="+") == "+2.0 ± 1.4"


SCRIPTS = [path.name for path in sorted((REPO / "tools" / "bench").glob("*.py")) if "def main()" in path.read_text()]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_benchmark_loads_and_shows_its_help(name, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # export.py sets it
    if name == "cam.py":
        pytest.importorskip("pytorch_grad_cam")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as leaving:
        load_script(f"bench/{name}", monkeypatch).main()
    assert leaving.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {name}")
