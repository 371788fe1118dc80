"""Measure the time and memory of indexing YouTube-Objects at its real length, and of loading the index.

    .venv/bin/python tools/bench/index.py --frames 570000 --tree DIR

Prints a row per layout: frames, shots and videos, seconds to build, write and load the index (processor seconds in
brackets), the size of index.json, and the peak memory beyond that of the imports. The script makes a tree of hard links
to a few tiny JPEG files. With ``--tree`` the tree is kept, and used again if it is complete.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import scipy.io
from harness import header, table_head, table_row, timed
from PIL import Image

from tcam.video.index import read_index, write_index
from tcam.video.youtube_objects.dataset import read_youtube_objects
from tcam.video.youtube_objects.layout import CLASSES

T = TypeVar("T")
SHOT = 104
"""Mean number of frames in a shot of v1.0."""
VIDEOS = 15
LINKS = 30_000
"""Hard links per file; file systems allow about 65,000."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=570_000)
    parser.add_argument("--tree", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    print(header(packages=("numpy", "scipy")), end="\n\n")
    columns = ("frames", "shots", "videos", "build s", "write s", "load s", "index.json MB", "peak memory MB")
    print(table_head("layout", *columns), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for layout in ("v1.0", "v2.2"):
            tree = (options.tree or Path(folder)) / layout
            write_tree(tree, layout, options.frames)
            # In a process of its own, which has its own peak of memory.
            subprocess.run([sys.executable, __file__, "--measure", str(tree)], check=True)


def write_tree(tree: Path, layout: str, frames: int) -> None:
    """Write ten classes of 15 videos of equal length."""
    done = tree / f"{frames}.done"
    if done.exists():
        return
    shots = max(frames // len(CLASSES) // SHOT, VIDEOS)
    for name in CLASSES:
        made: list[Path] = []
        for shot in range(shots):
            video = shot % VIDEOS if layout == "v1.0" else shot * VIDEOS // shots
            folder = tree / name if layout == "v2.2" else tree / name / f"data/{video:04d}/shots/{shot:03d}"
            folder.mkdir(parents=True, exist_ok=True)
            for frame in range(SHOT):
                number = f"{shot * SHOT + frame:08d}.jpg" if layout == "v2.2" else f"frame{frame + 1:04d}.jpg"
                link(folder / number, made)
        if layout == "v1.0":
            write_sets(tree / name, tree / name / "data")
        else:
            write_matlab(tree, name, shots)
    done.touch()


def link(path: Path, made: list[Path]) -> None:
    if not made or made[-1].stat().st_nlink > LINKS:
        Image.new("RGB", (64, 48), (90, 60, 30)).save(path)
        made.append(path)
    else:
        os.link(made[-1], path)


def write_sets(folder: Path, data: Path) -> None:
    (folder / "sets").mkdir()
    names = sorted(child.name for child in data.iterdir())
    for part, chosen in (("train", names[3:]), ("test", names[:3])):
        (folder / "sets" / f"{part}.txt").write_text("\n".join(chosen))
    for name in names:
        shot = min((data / name / "shots").iterdir())
        scipy.io.savemat(shot / "frame0001.jpg_sticks.mat", {"coor": np.array([[1.0, 2, 30, 40]])})


def write_matlab(tree: Path, name: str, shots: int) -> None:
    (tree / "Ranges").mkdir(exist_ok=True)
    (tree / "GroundTruth" / name).mkdir(parents=True)
    columns = [(shot * SHOT, shot * SHOT + SHOT - 1, shot * VIDEOS // shots) for shot in range(shots)]
    scipy.io.savemat(tree / "Ranges" / f"ranges_{name}.mat", {"ranges": np.array(columns, dtype=np.float64).T})
    firsts = [next(first for first, _, v in columns if v == video) for video in range(VIDEOS)]
    for word, chosen in (("Training", firsts[3:]), ("Test", firsts[:3])):
        structs = np.empty((1, len(chosen)), dtype=[("im", object), ("bb", object)])
        for i, number in enumerate(chosen):
            structs[0, i] = (f"{name}{number:08d}", np.array([[1, 2, 30, 40]]))
        scipy.io.savemat(tree / "GroundTruth" / name / f"bb_gt{word}_{name}.mat", {f"bb_gt{word}": structs})


def measure(tree: Path) -> None:
    """Print the row of one tree."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = tree / "index.json"
    dataset, build = wall_and_processor(partial(read_youtube_objects, tree))
    _, write = wall_and_processor(partial(write_index, dataset.index, path))
    index, load = wall_and_processor(partial(read_index, path))
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert index == dataset.index
    assert not dataset.warnings, dataset.warnings[:3]
    frames, shots = sum(r.num_frames for r in index.records), sum(len(r.shots) for r in index.records)
    size = f"{path.stat().st_size / 1e6:.2f}"
    print(table_row(tree.name, frames, shots, len(index.records), build, write, load, size, f"{peak:.0f}"), flush=True)


def wall_and_processor(work: Callable[[], T]) -> tuple[T, str]:
    """Return the result of some work and its seconds, those of the processor in brackets."""
    (result, processor_s), wall_s = timed(partial(timed, work, time.process_time))
    return result, f"{wall_s:.2f} ({processor_s:.2f})"


if __name__ == "__main__":
    main()
