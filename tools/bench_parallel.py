"""Frames per second of prepare and of CAMs: in this process, on 2 processes, on Ray with 2 workers, beside plain loops.

    .venv/bin/python tools/bench_parallel.py --videos ../shared/data/clips/car --clips 24 --rounds 3

Interleaved rounds, medians. A rate counts the frames of all clips over the wall clock less the start-up, which is the
time that the same workers take for two items of no work, and is quoted apart. Efficiency is the rate over twice that of
this process, which uses one thread as every worker does. The peers: PyAV decoding, scaling and encoding as the clean
copies are; decord reading those copies in order at 224 x 224, and our reader on the same files.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch

from pipelines.cams import MakeCams, ShotPart
from pipelines.config import load_config
from pipelines.device import choose_compute
from pipelines.localizer import Localizer, PackedLocalizer, build_network
from pipelines.parallel import ItemFailure, ordered_map
from pipelines.prepare_video import VideoJob, check_video
from pipelines.spread import Spread, split_range
from tcam.types import Shot, VideoRecord
from tcam.video.dataset import OpenReaders
from tcam.video.find import find_videos

SIZE = (224, 224)
SPREADS = {
    "this process": Spread(0),
    "2 processes": Spread(2),
    "Ray, 2 workers": Spread(2, ray=True, actors=2),
}


class Bench:
    """Clips, their prepared copies and the work on them."""

    def __init__(self, videos: Path, clips: int, backbone: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tcam-bench-"))
        self.clips = sorted(find_videos(videos))[:clips]
        good = [check_video(job) for job in self.jobs(self.folder / "copies")]
        self.records = [
            VideoRecord(
                path.name, str(path), 0, g.probe.num_frames, g.probe.size, g.probe.fps, "train",
                (Shot(0, g.probe.num_frames),), "decord", 0, g.cache_path,
            )
            for path, g in zip(self.clips, good, strict=True)
        ]  # fmt: skip
        self.frames = sum(record.num_frames for record in self.records)
        model = load_config(None, ["model.weights=random", f"model.backbone={backbone}"]).model
        network = build_network(model, 7, decoder=False, seed=0).eval()
        localizer = Localizer(network, "layercam", choose_compute("cpu", "fp32"))
        self.make_cams = MakeCams(PackedLocalizer.pack(localizer), 8, SIZE)

    def jobs(self, cache: Path) -> list[VideoJob]:
        """List the clips as prepare does."""
        cache.mkdir(parents=True, exist_ok=True)
        return [VideoJob(path.name, path.absolute(), cache, 240) for path in self.clips]

    def prepare(self, spread: Spread) -> float:
        """Time making all clean copies anew."""
        cache = self.folder / "fresh"
        shutil.rmtree(cache, ignore_errors=True)
        return timed(partial(run, start_checking, self.jobs(cache), spread, False))

    def cams(self, spread: Spread) -> float:
        """Time the CAMs of all copies."""
        parts = [
            ShotPart(i, record, record.shots[0], frames)
            for i, record in enumerate(self.records)
            for frames in split_range(0, record.num_frames, batch=8)
        ]
        return timed(partial(run, self.make_cams, parts, spread, True))

    def start_up(self, spread: Spread, holds_model: bool) -> float:
        """Time workers that only start."""
        start = partial(start_idle, self.make_cams if holds_model else start_checking)
        return timed(partial(run, start, [0, 1], spread, holds_model))

    def transcode(self) -> float:
        """Time the plain PyAV loop."""
        return timed(lambda: [plain_transcode(path, self.folder / "plain.mp4") for path in self.clips])

    def plain_decord(self) -> float:
        """Time the plain decord loop over the copies."""
        return timed(lambda: [plain_decord(Path(str(record.cache_path))) for record in self.records])

    def our_reader(self) -> float:
        """Time our reader over the copies."""
        return timed(lambda: [self._read(record) for record in self.records])

    def _read(self, record: VideoRecord) -> None:
        readers = OpenReaders(SIZE)
        for start in range(0, record.num_frames, 8):
            readers.read(record, range(start, min(start + 8, record.num_frames)))


def run(start: Callable, items: list, spread: Spread, holds_model: bool) -> None:
    for result in ordered_map(start, items, spread=spread, time_limit_s=600.0, holds_model=holds_model):
        if isinstance(result, ItemFailure):
            raise SystemExit(result.reason)


def start_checking() -> Callable:
    return check_video


def start_idle(start: Callable) -> Callable:
    start()
    return idle


def idle(item: int) -> int:
    return item


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def plain_transcode(source: Path, target: Path) -> None:
    import av

    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        shown = reading.streams.video[0]
        shown.codec_context.thread_count = 1
        made = writing.add_stream("libx264", rate=24, options={"crf": "12", "g": "1", "preset": "veryfast"})
        scale = 240 / min(shown.width, shown.height)
        made.width, made.height = round(shown.width * scale / 2) * 2, round(shown.height * scale / 2) * 2
        made.pix_fmt = "yuv420p"
        made.codec_context.thread_count = 1
        for frame in reading.decode(shown):
            frame = frame.reformat(made.width, made.height, "rgb24")
            writing.mux(made.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(), format="rgb24")))
        writing.mux(made.encode())


def plain_decord(path: Path) -> None:
    import decord

    reader = decord.VideoReader(str(path), ctx=decord.cpu(0), width=SIZE[1], height=SIZE[0], num_threads=1)
    for start in range(0, len(reader), 8):
        frames = reader.get_batch(list(range(start, min(start + 8, len(reader))))).asnumpy()
        torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--without-ray", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    spreads = {name: s for name, s in SPREADS.items() if not (s.ray and options.without_ray)}
    bench = Bench(options.videos, options.clips, options.backbone)
    print(f"{platform.machine()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {options.backbone}")
    print(f"{len(bench.clips)} clips, {bench.frames} frames, {options.rounds} rounds")
    times: dict[tuple[str, str], list[float]] = {}
    try:
        for _ in range(options.rounds):
            for name, work in (("PyAV transcode", bench.transcode), ("decord", bench.plain_decord)):
                times.setdefault((name, "plain loop"), []).append(work())
            times.setdefault(("decord", "our reader"), []).append(bench.our_reader())
            for name, spread in spreads.items():
                for what, work in (("prepare", bench.prepare), ("cams", bench.cams)):
                    start_up = 0.0 if spread.here else bench.start_up(spread, what == "cams")
                    times.setdefault((f"{what}, start-up", name), []).append(start_up)
                    times.setdefault((what, name), []).append(work(spread) - start_up)
    finally:
        shutil.rmtree(bench.folder)
    show({key: median(values) for key, values in times.items()}, bench.frames)
    print(f"load at the end {os.getloadavg()[0]:.1f}")


def show(seconds: dict[tuple[str, str], float], frames: int) -> None:
    print("| work | where | frames/s | of 2 processors | start-up |\n|---|---|---|---|---|")
    for (what, where), took in seconds.items():
        if what.endswith("start-up"):
            continue
        alone = seconds.get((what, "this process"), took)
        efficiency = f"{alone / took / 2:.0%}" if "2" in where else "-"
        start_up = seconds.get((f"{what}, start-up", where), 0.0)
        print(f"| {what} | {where} | {frames / took:.0f} | {efficiency} | {start_up:.1f} s |")


if __name__ == "__main__":
    import bench_parallel  # workers import what they are handed: it must not belong to __main__

    bench_parallel.main()
