"""Measure what a process needs to start: the localizer imported without PyTorch's compiler, and with plain timm.

.venv/bin/python tools/bench/start.py
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from harness import header, table_head, table_row

USE = "\nimport resource\nused = resource.getrusage(resource.RUSAGE_SELF)\n"
SHOW = "print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)"
PROGRAMS = {
    "torch alone": "import torch",
    "localizer, as it is": "import pipelines.models.localizer",
    "localizer, after a plain import of timm": "import timm, pipelines.models.localizer",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="processes of each kind, in turns")
    options = parser.parse_args()
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for turn in range(options.repeats + 1):
        for name, program in PROGRAMS.items():
            command = [sys.executable, "-c", program + USE + SHOW]
            seconds, megabytes = map(float, subprocess.run(command, capture_output=True, check=True).stdout.split())
            if turn:  # the first ones read files that are not in memory yet
                took[name].append((seconds, megabytes))
    print(header(f"{options.repeats} processes of each kind"))
    print(table_head("imported", "processor seconds, median", "peak MB"))
    for name, times in took.items():
        seconds, megabytes = (statistics.median(column) for column in zip(*times, strict=True))
        print(table_row(name, f"{seconds:.2f}", f"{megabytes:.0f}"))


if __name__ == "__main__":
    main()
