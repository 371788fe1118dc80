"""Stream localizers in other processes: forked from one that has loaded them, or sent to a fresh one; for tests."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from pipelines.streaming.localizer import StreamLocalizer
from tcam.types import FrameBox

_FORK = """
import faulthandler, os, pickle, sys
with open(sys.argv[1], "rb") as stream:
    localizer = pickle.load(stream)
from tests.helpers.other_processes import steps
steps(localizer)
child = os.fork()
if not child:
    faulthandler.dump_traceback_later(60, exit=True)
    print(steps(localizer), flush=True)
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(steps(localizer))
sys.exit(code)
"""


def steps(localizer: StreamLocalizer) -> list[FrameBox]:
    """Localize in three frames."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 80, 3), dtype=np.uint8)
    return [localizer.step(frame) for frame in frames]


def steps_in_spawned(localizer: StreamLocalizer) -> list[FrameBox]:
    """Do the same in a fresh process that a localizer is sent to."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(steps, localizer).result(timeout=120)


def check_fork(localizer: StreamLocalizer, folder: Path) -> None:
    """Check that a process that has localized gives the same after a fork as its child."""
    (folder / "localizer").write_bytes(pickle.dumps(localizer))
    command = [sys.executable, "-c", _FORK, str(folder / "localizer")]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    child, parent = done.stdout.splitlines()
    assert child == parent
    assert "Box(" in child
