"""Measure whether `tcam predict` needs more memory for a longer video: its peak for 200 and 2000 frames.

    .venv/bin/python tools/bench/memory.py RUN --source VIDEO --frames 200 2000

Repeats VIDEO to get files of these lengths, and runs `tcam predict` on each in a new process (`tcam stream` with
`--command stream`). Prints frames, rows of the box table, seconds and the peak of resident memory.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from harness import header, table_head, table_row, timed

from tcam.video.reader import stream_frames
from tcam.video.writer import VideoWriter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--command", choices=("predict", "stream"), default="predict")
    parser.add_argument("--frames", type=int, nargs="+", default=[200, 2000])
    options = parser.parse_args()
    print(header(f"tcam {options.command} {options.run}"), end="\n\n")
    print(table_head("frames", "rows", "s", "peak MB", text_columns=0))
    with tempfile.TemporaryDirectory() as folder:
        for count in sorted(options.frames):  # the peak of all child processes only grows: the shortest first
            video = Path(folder) / f"{count}.mp4"
            loop_video(options.source, video, count)
            table = Path(folder) / "boxes.jsonl"
            command = [options.command, options.run, "--source", video, "-o", table, "--quiet"]
            program = str(Path(sys.executable).with_name("tcam"))
            _, took = timed(partial(subprocess.run, [program, *map(str, command)], check=True))
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            rows = table.read_text().count('"frame"')
            print(table_row(count, rows, f"{took:.0f}", f"{peak:.0f}"), flush=True)


def loop_video(source: Path, target: Path, count: int) -> None:
    first = next(stream_frames(source))
    frames = (frame for _ in itertools.count() for frame in stream_frames(source))
    with VideoWriter(target, size=first.original_size, fps=24) as writer:
        for frame in itertools.islice(frames, count):
            writer.write(frame.pixels)


if __name__ == "__main__":
    main()
