"""A thousand short clips, some broken in different ways: one row each, exit 4, flat memory, time per clip.

    .venv/bin/python tools/stress/many.py --clips 1000 --broken 30 --workers 2

Runs `tcam prepare` on generated clips in a process of its own and prints what came of it; a failed promise ends it with
an error.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pipelines.synthetic.videos import write_synthetic_videos

SOME_FAILED = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--broken", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tcam-many-") as name:
        folder = Path(name)
        broken = lay_clips(folder / "videos", options.clips, options.broken)
        check(folder, broken, options)


def lay_clips(root: Path, count: int, num_broken: int) -> dict[str, str]:
    """Write clips of two classes that differ in content; give the broken ones and how they were broken."""
    seeds = root.with_name("seeds")
    write_synthetic_videos(seeds, classes=2, videos_per_class=(6, 1, 1), frames=12, size=(64, 64), seed=0)
    models = sorted(seeds.rglob("*.mp4"))
    ids = []
    for number in range(count):
        model = models[number % len(models)]
        clip = root / model.parent.name / f"{number:04d}.mp4"
        clip.parent.mkdir(parents=True, exist_ok=True)
        # A box of type "free" is skipped by every reader and gives each clip a content of its own.
        note = f"{number:016d}".encode()
        clip.write_bytes(model.read_bytes() + (8 + len(note)).to_bytes(4, "big") + b"free" + note)
        ids.append(clip.relative_to(root).as_posix())
    generator = random.Random(0)  # noqa: S311
    ways = list(WAYS.items())
    broken = {}
    for place, video_id in enumerate(generator.sample(ids, num_broken)):
        name, spoil = ways[place % len(ways)]
        spoil(root / video_id)
        broken[video_id] = name
    return broken


def _cut(share: float) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)]) and None


def _replace(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all.mp4")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _no_index(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"moov", b"m00v"))


def _no_stream(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz").replace(b"vide", b"soun"))


WAYS: dict[str, Callable[[Path], None]] = {
    "empty": _replace(b""),
    "text": _replace(b"hello\n" * 100),
    "random bytes": _replace(random.Random(1).randbytes(20_000)),  # noqa: S311
    "zeros": _replace(bytes(20_000)),
    "cut to a tenth": _cut(0.1),
    "header alone": _cut(0.005),
    "no index": _no_index,
    "no video stream": _no_stream,
    "dangling link": _dangling,
    "named pipe": _pipe,
}


def check(folder: Path, broken: dict[str, str], options: argparse.Namespace) -> None:
    out = folder / "out"
    command = [sys.executable, "-c", "from pipelines.cli.app import main; main()", "prepare", str(folder / "videos")]
    command += ["-o", str(out), "--set", "data.cache_short_side=64", "--workers", str(options.workers)]
    command += ["--ray"] if options.ray else []
    environment = {**os.environ, "TCAM_HOME": str(folder / "home")}
    began = time.monotonic()
    with (folder / "log").open("w") as log, subprocess.Popen(command, env=environment, stderr=log) as process:
        memory = watch(process, folder / "home")
    took = time.monotonic() - began
    with (out / "errors.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    index = json.loads((out / "index.json").read_text())
    quarters = [max(memory[i * len(memory) // 4 : (i + 1) * len(memory) // 4], default=0.0) for i in range(4)]
    listed = Counter(row["video"] for row in rows)
    promises = {
        f"exit code {SOME_FAILED}": process.returncode == SOME_FAILED,
        "one row for each broken clip and none for another": listed == Counter(broken.keys()),
        "one line of at most 300 characters each": all(
            len(r["reason"]) <= 300 and "\n" not in r["reason"] for r in rows
        ),
        "every other clip in the index": len(index["records"]) == options.clips - options.broken,
        "memory flat: the last quarter at most 15 % above the second": quarters[3] <= 1.15 * quarters[1],
    }
    print(
        f"{options.clips} clips, {options.broken} broken in {len(set(broken.values()))} ways, {options.workers} workers"
    )
    print(f"{took:.0f} s, {took / options.clips * 1000:.0f} ms per clip, load {os.getloadavg()[0]:.1f}")
    print(f"peak MB by quarter of the time since the first copy: {', '.join(f'{q:.0f}' for q in quarters)}")
    for row in sorted(rows, key=lambda row: broken.get(row["video"], "")):
        print(f"  {broken.get(row['video'], '?'):<16} {row['reason'][:110]}")
    for promise, kept in promises.items():
        print(f"{'ok  ' if kept else 'FAIL'} {promise}")
    if not all(promises.values()):
        shutil.copy(folder / "log", Path(tempfile.gettempdir()) / "tcam-many.log")
        raise SystemExit("a promise was not kept; see tcam-many.log in the temporary folder")


def watch(process: subprocess.Popen, copies: Path) -> list[float]:
    """Return the resident megabytes of a process and its children, twice a second, from the first copy to the end."""
    memory: list[float] = []
    ended = threading.Event()
    threading.Thread(target=lambda: (process.wait(), ended.set()), daemon=True).start()
    while not ended.wait(0.5):
        if memory or any(copies.rglob("*.mp4")):  # before, workers start and import: half of the time on a slow machine
            memory.append(sum(map(resident_mb, family(process.pid))))
    return memory


def family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(member for child in children for member in family(int(child)))]


def resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError):
        return 0.0


if __name__ == "__main__":
    main()
