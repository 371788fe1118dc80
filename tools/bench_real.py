"""LayerCAM against TCAM on real tagged clips: several seeds, mean and spread, every protocol, per class.

    .venv/bin/python tools/bench_real.py --videos ../shared/data/clips --seeds 0 1 2

Each seed is one `tcam train` run; its LayerCAM row is the CAM of the very classifier that seeded its TCAM. Prints
Markdown (for configs/README.md) on stdout. A finished run is read, not made again.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=REPO / "configs/real/tcam.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=REPO / "runs" / "bench-real")
    parser.add_argument(
        "--transductive", action="store_true", help="also score the training videos (seen without boxes)"
    )
    options = parser.parse_args()
    tables: dict[str, list[list[dict]]] = {"test": []}
    minutes = []
    for seed in options.seeds:
        folder, took = train(options.config, options.videos, options.runs, seed)
        tables["test"].append(json.loads((folder / "evaluation" / "test.json").read_text()))
        minutes.append(took)
        if options.transductive:
            tables.setdefault("train (transductive)", []).append(evaluate_train(folder, options.videos))
    report(tables, minutes, options)


def train(config: Path, videos: Path, runs: Path, seed: int) -> tuple[Path, float | None]:
    """Give the run folder of one seed and the minutes it took (None: it was there)."""
    folder = runs / f"seed{seed}-001"
    if (folder / "evaluation" / "test.json").is_file():
        return folder, None
    command = ["train", "--videos", videos, "--config", config, "--seed", seed, "--runs", runs, "--name", f"seed{seed}"]
    began = time.monotonic()
    tcam(command if not folder.exists() else ["train", "--resume", folder])
    return folder, (time.monotonic() - began) / 60


def evaluate_train(folder: Path, videos: Path) -> list[dict]:
    output = folder / "evaluation-train"
    if not (output / "table.json").is_file():
        tcam(["evaluate", folder, "--videos", videos, "--split", "train", "-o", output])
    return json.loads((output / "table.json").read_text())


def tcam(arguments: Sequence[object]) -> None:
    command = [Path(sys.executable).with_name("tcam"), *arguments]
    subprocess.run([str(part) for part in command], check=True, cwd=REPO)


def report(tables: dict[str, list[list[dict]]], minutes: list[float | None], options: argparse.Namespace) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=REPO).stdout
    measured = [value for value in minutes if value is not None]
    took = f", {statistics.mean(measured):.0f} min per seed" if measured else ""
    print(f"Seeds {options.seeds}, commit {commit.strip()}, {platform.processor() or platform.machine()}{took}.")
    for split, runs in tables.items():
        classes = list(runs[0][0]["per_class"])
        print(f"\n**{split}**, {runs[0][0]['num_frames']} frames\n")
        print("| method | map threshold | mean | over frames | " + " | ".join(classes) + " |")
        print("|---|---|" + "---:|" * (len(classes) + 2))
        for row in range(len(runs[0])):
            same = [run[row] for run in runs]
            choice = same[0]["protocol"].rpartition(", ")[2].removeprefix("map threshold: ")
            values = [[run["macro"] for run in same], [run["micro"] for run in same]]
            values += [[run["per_class"][name] for run in same] for name in classes]
            cells = [same[0]["method"], choice, *(spread(value) for value in values)]
            print("| " + " | ".join(cells) + " |")


def spread(values: list[float | None]) -> str:
    """Write mean ± sample standard deviation over seeds."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    if max(known) == min(known):
        return f"{known[0]:.1f}"
    return f"{statistics.mean(known):.1f} ± {statistics.stdev(known):.1f}"


if __name__ == "__main__":
    main()
