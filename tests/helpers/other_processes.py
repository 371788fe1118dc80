"""Stream localizers in other processes: sent to a fresh one, or forked from one that has localized; for tests.

Fresh processes come from ``fresh_start``: they have computed nothing, but need no seconds to import torch.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection

import numpy as np

from pipelines.parallel.processes import fresh_start
from pipelines.streaming.localizer import StreamLocalizer
from tcam.types import FrameBox


def steps(localizer: StreamLocalizer) -> list[FrameBox]:
    """Localize in three frames."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 80, 3), dtype=np.uint8)
    return [localizer.step(frame) for frame in frames]


def steps_in_fresh_process(localizer: StreamLocalizer) -> list[FrameBox]:
    """Do the same in a fresh process that a localizer is sent to."""
    with ProcessPoolExecutor(1, mp_context=fresh_start()) as pool:
        return pool.submit(steps, localizer).result(timeout=120)


def check_fork(localizer: StreamLocalizer) -> None:
    """Check that a process that has localized gives the same after a fork as its child."""
    context = fresh_start()
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_fork_between_steps, args=(localizer, writer))
    process.start()
    writer.close()
    process.join(180)
    process.kill()
    assert process.exitcode == 0
    child, parent = reader.recv(), reader.recv()
    assert child == parent
    assert any(found.box is not None for found in parent)


def _fork_between_steps(localizer: StreamLocalizer, results: Connection) -> None:
    steps(localizer)
    child = os.fork()
    if not child:
        faulthandler.dump_traceback_later(60, exit=True)
        results.send(steps(localizer))
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    results.send(steps(localizer))
    sys.exit(code)
