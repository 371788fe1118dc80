"""Does `tcam predict` need more memory for a longer video? Peak resident memory for 1x and 10x the frames.

    .venv/bin/python tools/bench/memory.py RUN --source VIDEO --frames 200 2000

Loops VIDEO into files of the asked lengths, predicts each in a fresh process (`--command stream`: by `tcam stream`),
prints frames, seconds, peak MB.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tcam.video.reader import stream_frames
from tcam.video.writer import VideoWriter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--command", choices=("predict", "stream"), default="predict")
    parser.add_argument("--frames", type=int, nargs="+", default=[200, 2000])
    options = parser.parse_args()
    print(f"{platform.machine()}, {options.run}")
    with tempfile.TemporaryDirectory() as folder:
        for count in sorted(options.frames):  # the peak of all children only grows, so the short one goes first
            video = Path(folder) / f"{count}.mp4"
            loop_video(options.source, video, count)
            began = time.monotonic()
            table = Path(folder) / "boxes.jsonl"
            command = [options.command, options.run, "--source", video, "-o", table, "--quiet"]
            subprocess.run([str(Path(sys.executable).with_name("tcam")), *map(str, command)], check=True)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            rows = table.read_text().count('"frame"')
            print(f"{count} frames: {rows} rows, {time.monotonic() - began:.0f} s, peak {peak:.0f} MB")


def loop_video(source: Path, target: Path, count: int) -> None:
    first = next(stream_frames(source))
    frames = (frame for _ in itertools.count() for frame in stream_frames(source))
    with VideoWriter(target, size=first.original_size, fps=24) as writer:
        for frame in itertools.islice(frames, count):
            writer.write(frame.pixels)


if __name__ == "__main__":
    main()
