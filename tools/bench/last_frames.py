"""Measure what a walk over the last frames costs in a stream: maps frame by frame, with it and without, in turns.

.venv/bin/python tools/bench/last_frames.py RUN VIDEO
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

import numpy as np
from harness import header, table_head, table_row

WARM_UP = 30
"""Frames that are not counted: the walk has all of its frames after ``window * stride``."""


def main() -> None:
    from pipelines.models.localizer import NetworkLocalizer
    from pipelines.models.open import open_model
    from pipelines.models.refinement.last_frames import LastFramesEngine
    from tcam.video.reader import stream_frames

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames", type=int, default=60, help="of the video, from its start again where it is shorter")
    options = parser.parse_args()
    plain, walked = (open_model(options.run, device="cpu", refine=refine) for refine in ("none", "joint"))
    localizer = walked.packed.unpack()
    assert isinstance(localizer, NetworkLocalizer)
    engines = {"alone": plain.packed.unpack(), "with the last frames": LastFramesEngine(localizer)}
    pixels = [frame.pixels for frame in stream_frames(options.video, size=plain.size)]
    took: dict[str, list[float]] = {name: [] for name in engines}
    for frame in itertools.islice(itertools.cycle(pixels), WARM_UP + options.frames):
        for name, engine in engines.items():
            began = time.perf_counter()
            engine.find(np.ascontiguousarray(frame[None]), None)
            took[name].append(1000 * (time.perf_counter() - began))
    print(header(f"{options.frames} frames of {plain.size[0]} x {plain.size[1]}"))
    print(table_head("map", "ms per frame, median"))
    for name, times in took.items():
        print(table_row(name, f"{statistics.median(times[WARM_UP:]):.1f}"))


if __name__ == "__main__":
    main()
