"""Kill a training with SIGKILL again and again: does it end as if it had never stopped?

    .venv/bin/python tools/stress/kill.py --kills 100

Trains a tiny real run (synthetic videos, random weights, CPU) in peace, then the same again and again, killed and
resumed until it is finished, until there were KILLS. Every other kill hits a file that is being written. After
each kill every checkpoint is read; a finished run must be the peaceful one, byte for byte: metrics.jsonl, weights,
CAMs, thresholds. Every attempt is ``tcam train`` in a process of its own, forked from this one: that has imported torch
but computed nothing, so an attempt does not begin with seconds of imports. Exit code 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a forked process must not inherit threads

import numpy as np
import torch
from safetensors import safe_open

from pipelines.cli import app as cli
from pipelines.commands import train as commands
from pipelines.synthetic.videos import write_synthetic_videos
from tcam.model.backbone import Backbone

SETTINGS = (
    "device=cpu",
    "precision=fp32",
    "data.workers=0",
    "data.cache_short_side=64",
    "input.resize=72",
    "input.crop=64",
    "model.backbone=test_resnet",
    "model.backbone_options={drop_path_rate: 0.2}",
    "model.weights=random",
    "model.decoder_channels=[8,8,8,8,8]",
    "classifier.epochs=3",
    "classifier.batch=2",
    "classifier.frames_per_shot=4",
    "localizer.epochs=3",
    "localizer.batch=2",
    "localizer.frames_per_shot=4",
    "evaluation.threshold_step=0.1",
    "evaluation.selection_frames=2",
)
SAVE_EVERY_S = ("0", "0.2")
"""Runs take turns: a state after every step, and one now and then."""

MOST_WRITES = 10
"""A kill comes after 0 to so many files were begun, so that a run gets on between two of them."""

PUBLISHED = ("metrics.jsonl", "*/*.safetensors", "cams/*.npy", "evaluation/*.json")


@dataclass
class Figures:
    """What happened."""

    kills: int = 0
    kills_in_a_write: int = 0
    runs: int = 0
    corrupt: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    where: Counter[str] = field(default_factory=Counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tcam-kill-") as folder:
        figures, peaceful_s = kill_and_resume(Path(folder), options.kills, random.Random(options.seed))  # noqa: S311
    print(f"{figures.kills} kills, {figures.kills_in_a_write} of them while a file was written, in {figures.runs} runs")
    print(f"an undisturbed run takes {peaceful_s:.1f} s")
    print(
        "state left by the kill, stage epochs:steps (12 an epoch): "
        + ", ".join(f"{name} x{count}" for name, count in sorted(figures.where.items()))
    )
    for what in ("corrupt", "different", "leftovers"):
        found = getattr(figures, what)
        print(f"{what}: {len(found)}", *found[:5])
    sys.exit(bool(figures.corrupt or figures.different or figures.leftovers))


def kill_and_resume(folder: Path, kills: int, moments: random.Random) -> tuple[Figures, float]:
    """Make one peaceful run and as many killed ones as give so many kills; the peaceful one's seconds come along."""
    os.environ["TCAM_HOME"] = str(folder / "home")
    videos = folder / "videos"
    run_forked(
        lambda: write_synthetic_videos(videos, classes=2, videos_per_class=(3, 1, 1), frames=8, size=(64, 64), seed=0)
    )
    train(videos, folder / "warm", "0")  # fills the frame cache
    began = time.monotonic()
    wanted = published(train(videos, folder / "peace", "30"))
    peaceful_s = time.monotonic() - began
    figures = Figures()
    while figures.kills < kills:
        every = SAVE_EVERY_S[figures.runs % len(SAVE_EVERY_S)]
        run = folder / f"killed-{figures.runs}"
        finish_under_fire(videos, run, every, kills, moments, figures)
        figures.runs += 1
        found = published(run / "run-001")
        differing = [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]
        figures.different += [f"{run.name}/{name}" for name in differing]
        figures.leftovers += [str(path) for path in temporary_files(run)]
        shutil.rmtree(run)
        print(f"{figures.kills}/{kills} kills, {figures.runs} runs", file=sys.stderr)
    return figures, peaceful_s


def finish_under_fire(
    videos: Path, runs: Path, every: str, kills: int, moments: random.Random, figures: Figures
) -> None:
    """Start or resume one run until it is finished, killing it as long as kills are left."""
    while True:
        child = start(videos, runs, every)
        if figures.kills >= kills:
            if wait(child) != 0:
                raise SystemExit("a resumed run failed: see above")
            return
        writes = moments.randint(0, MOST_WRITES)
        if not kill_later(child, runs, writes, after_s=moments.uniform(0.0, 0.2) * (figures.kills % 2)):
            return
        figures.kills += 1
        figures.kills_in_a_write += bool(temporary_files(runs))
        figures.where[position(runs)] += 1
        figures.corrupt += list(corrupt_files(runs))


def train(videos: Path, runs: Path, every: str) -> Path:
    """Train in peace; returns the run folder."""
    if wait(start(videos, runs, every)) != 0:
        raise SystemExit("the undisturbed run failed: see above")
    return runs / "run-001"


def start(videos: Path, runs: Path, every: str) -> int:
    """Begin ``tcam train`` in a new process, resuming where there is a run; returns its number."""
    run = runs / "run-001"
    if (run / "config.yaml").is_file():
        arguments = ["--resume", str(run)]
    else:
        shutil.rmtree(runs, ignore_errors=True)  # killed before the run had its settings
        settings = [part for setting in (*SETTINGS, f"save_every_s={every}") for part in ("--set", setting)]
        arguments = ["--runs", str(runs), "--name", "run", *settings]
    child = os.fork()
    if child == 0:
        sys.argv = ["tcam", "train", "--quiet", "--videos", str(videos), *arguments]
        leave_after(cli.main)
    return child


def run_forked(work: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:
        leave_after(work)
    if wait(child) != 0:
        raise SystemExit("the synthetic videos could not be written")


def leave_after(work: Callable[[], object]) -> None:
    """End the forked process with the exit code of its work."""
    code = 1
    try:
        work()
        code = 0
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_later(child: int, runs: Path, writes: int, after_s: float) -> bool:
    """Kill a process when it has begun so many files, or a while after; False where it was finished before."""
    begun, writing, deadline = 0, False, 0.0
    while begun < writes or time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if os.waitstatus_to_exitcode(status) != 0:
                raise SystemExit("a resumed run failed: see above")
            return False
        before, writing = writing, bool(temporary_files(runs))
        if writing and not before:
            begun += 1
            deadline = time.monotonic() + after_s
        time.sleep(0.0003)
    os.kill(child, signal.SIGKILL)
    return wait(child) == -signal.SIGKILL


def temporary_files(folder: Path) -> list[Path]:
    found = []
    for parent in (folder, *(folder / "run-001" / name for name in ("", "classifier", "cams", "localizer"))):
        with contextlib.suppress(FileNotFoundError):
            found += [Path(entry.path) for entry in os.scandir(parent) if entry.name.endswith((".tmp", ".part"))]
    return found


def position(runs: Path) -> str:
    """Describe how far the newest saved state is: stage, epochs finished and steps of the next one."""
    for stage in ("localizer", "classifier"):
        path = runs / "run-001" / stage / "resume.pt"
        with contextlib.suppress(Exception):  # corrupt_files tells of damaged ones
            at = torch.load(path, weights_only=True)["position"]
            return f"{stage} {at['epoch']}:{at['step']}"
    return "none yet"


def corrupt_files(runs: Path) -> Iterator[str]:
    """Read everything a reader would read."""
    readers = {".pt": read_state, ".safetensors": read_weights, ".npy": np.load, ".json": read_json}
    for path in runs.rglob("*"):
        read = readers.get(path.suffix)
        if read is not None and not path.name.startswith("."):
            try:
                read(path)
            except Exception as error:  # whatever it is, the file is damaged
                yield f"{path.name}: {error}"


def read_state(path: Path) -> object:
    return torch.load(path, weights_only=True)


def read_json(path: Path) -> object:
    return json.loads(path.read_text())


def read_weights(path: Path) -> object:
    with safe_open(path, "pt") as stream:
        return [stream.get_tensor(name) for name in stream.keys()]  # noqa: SIM118 (not a dict)


def published(run: Path) -> dict[str, bytes]:
    """Return the bytes of what a run publishes."""
    return {str(path.relative_to(run)): path.read_bytes() for glob in PUBLISHED for path in run.glob(glob)}


WARM = (commands, Backbone)
"""Imported here, once, so that no attempt has to."""

if __name__ == "__main__":
    main()
