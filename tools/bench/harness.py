"""What the benchmarks share: cases measured in turns, medians, a line about the machine, and Markdown tables.

Other programs, clock speeds and caches change while a benchmark runs. So the cases take turns, round by round, and a
ratio is the median of the ratios within a round. Scripts in this folder import this file as ``harness``.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from pipelines.run.environment import processor_name

REPO = Path(__file__).resolve().parents[2]

T = TypeVar("T")
Name = TypeVar("Name", bound=Hashable)
Clock = Callable[[], float]
"""Returns seconds: ``time.perf_counter`` (wall), ``time.process_time`` or ``time.thread_time`` (processor)."""


class Timings(Generic[Name]):
    """Seconds of named cases, one figure per round.

    Args:
        clock: measures the calls of ``time`` and ``take_turns``.
    """

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self.clock = clock
        self.seconds: dict[Name, list[float]] = {}

    def add(self, name: Name, seconds: float) -> None:
        """Record seconds that were measured elsewhere."""
        self.seconds.setdefault(name, []).append(seconds)

    def time(self, name: Name, work: Callable[[], T], *, per: int = 1) -> T:
        """Run some work once, record its seconds divided by ``per``, and return its result."""
        result, seconds = timed(work, self.clock)
        self.add(name, seconds / per)
        return result

    def take_turns(self, cases: Mapping[Name, Callable[[], T]]) -> dict[Name, T]:
        """Run one round: every case once, in order. Return the results."""
        return {name: self.time(name, work) for name, work in cases.items()}

    def median(self, name: Name) -> float:
        """Return the median seconds of a case."""
        return statistics.median(self.seconds[name])

    def medians(self) -> dict[Name, float]:
        """Return the median seconds of every case."""
        return {name: self.median(name) for name in self.seconds}

    def ratio(self, name: Name, reference: Name) -> float:
        """Return the median, over rounds, of the seconds of ``name`` divided by those of ``reference``.

        Raises:
            ValueError: the two cases were not measured in the same number of rounds.
        """
        return statistics.median(a / b for a, b in zip(self.seconds[name], self.seconds[reference], strict=True))


def measure(
    cases: Mapping[Name, Callable[[], T]], rounds: int, *, warm_up: int = 1, clock: Clock = time.perf_counter
) -> tuple[Timings[Name], dict[Name, T]]:
    """Measure cases that take turns.

    Args:
        cases: what to run, by name; a round runs each of them once, in this order.
        rounds: that count, at least 1.
        warm_up: rounds before these, whose times are dropped.
        clock: the clock of all rounds.

    Returns:
        The timings of ``rounds`` rounds, and what each case returned in the last one.

    Raises:
        ValueError: ``rounds`` is below 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    for _ in range(warm_up):
        for work in cases.values():
            work()
    timings: Timings[Name] = Timings(clock)
    results: dict[Name, T] = {}
    for _ in range(rounds):
        results = timings.take_turns(cases)
    return timings, results


def timed(work: Callable[[], T], clock: Clock = time.perf_counter) -> tuple[T, float]:
    """Return the result of some work and the seconds it took."""
    began = clock()
    result = work()
    return result, clock() - began


def wall_clock(device: str) -> Clock:
    """Return a clock of wall time that waits for the device, because a CUDA call returns before its work is done."""
    if not device.startswith("cuda"):
        return time.perf_counter
    import torch

    def synchronized() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronized


def header(*facts: str, device: str = "cpu", packages: Sequence[str] = ()) -> str:
    """Return a line with all that figures depend on: commit, machine, threads, versions and load, then ``facts``.

    Args:
        facts: what else to say, such as the number of rounds.
        device: where the work runs; an accelerator is named.
        packages: whose versions matter, besides PyTorch; one that is not installed is left out.
    """
    import torch

    threads = torch.get_num_threads()
    parts = [f"commit {commit()}", processor_name(), f"{os.cpu_count()} processors"]
    parts += [torch.cuda.get_device_name(device)] if device.startswith("cuda") else []
    parts += [f"{threads} torch thread{'s' if threads > 1 else ''}", f"Python {platform.python_version()}"]
    parts += [f"torch {torch.__version__}"]
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            parts.append(f"{name} {importlib.metadata.version(name)}")
    return "; ".join([", ".join([*parts, f"load {os.getloadavg()[0]:.1f}"]), *facts])


def commit() -> str:
    """Return the commit of this checkout, marked ``-dirty`` if files differ from it; "unknown" outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPO)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def table_head(*columns: str, text_columns: int = 1) -> str:
    """Return the two lines that begin a Markdown table; the first columns hold text, the others numbers."""
    numbers = len(columns) - text_columns
    return f"{table_row(*columns)}\n|{'---|' * text_columns}{'---:|' * numbers}"


def table_row(*cells: object) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def spread(values: Sequence[float | None], *, digits: int = 1, sign: str = "") -> str:
    """Write the mean ± sample standard deviation of the values that are known.

    Args:
        values: None and NaN are unknown; without any known value the result is a dash.
        digits: after the decimal point.
        sign: "+" writes the sign of a positive mean, too.
    """
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known:
        return "–"
    mean = f"{statistics.mean(known):{sign}.{digits}f}"
    return mean if max(known) == min(known) else f"{mean} ± {statistics.stdev(known):.{digits}f}"
