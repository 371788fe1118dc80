"""Measure frames per second of prepare and of CAMs in one process, on 2 processes and on Ray, and those of plain loops.

    .venv/bin/python tools/bench/parallel.py --videos ../shared/data/clips/car --clips 24 --rounds 3

All rows take turns; medians of rounds. The clock starts when both workers are ready, each with its model, and stops at
the last result; the time before is the start-up, a column of its own. There are two measures of efficiency. One divides
by twice the rate of this process, which uses one thread as every worker does. The other divides by the rate of two
plain processes that share nothing and each do all of the work: the most that two processors of this machine can do. The
plain loops are PyAV decoding, scaling and encoding with the settings of the clean copies, and decord reading those
copies in order at 224 x 224, 32 frames at a time; our reader reads the same files.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from harness import Timings, header, table_head, table_row, timed

from pipelines.config.schema import load_config
from pipelines.data.probe_and_copy import VideoJob, check_video
from pipelines.models.device import choose_compute
from pipelines.models.localizer import NetworkLocalizer, PackedLocalizer, build_network
from pipelines.parallel.map import ItemFailure, ordered_map
from pipelines.parallel.placement import COPY_FRAMES, Placement, split_range
from pipelines.training.cam_cache import MakeCams, ShotPart
from tcam.types import Shot, VideoRecord
from tcam.video.data_folder.find import find_videos
from tcam.video.dataset import OpenReaders

SIZE = (224, 224)
BATCH = 32
WORKERS = 2
PLAIN = "2 plain processes"
PLACEMENTS = {
    "this process": Placement(0),
    "2 processes": Placement(WORKERS),
    "Ray, 2 workers": Placement(WORKERS, ray=True, actors=WORKERS),
}


class Bench:
    """Clips, their clean copies, and the work that is measured on them."""

    def __init__(self, videos: Path, clips: int, backbone: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tcam-bench-"))
        self.clips = list(find_videos(videos).paths)[:clips]
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
        localizer = NetworkLocalizer(network, "layercam", choose_compute("cpu", "fp32"))
        self.make_cams = MakeCams(PackedLocalizer.pack(localizer), BATCH, SIZE)

    def jobs(self, cache: Path) -> list[VideoJob]:
        """Return the clips as jobs of ``tcam prepare``."""
        cache.mkdir(parents=True, exist_ok=True)
        return [VideoJob(path.name, path.absolute(), cache, 240) for path in self.clips]

    def work(self, what: str, cache_name: str = "fresh") -> tuple[Callable, list, bool]:
        """Return what starts the work (clean copies or CAMs), its items, and whether workers hold a model."""
        if what == "prepare":
            cache = self.folder / cache_name
            shutil.rmtree(cache, ignore_errors=True)
            return start_checking, self.jobs(cache), False
        parts = [
            ShotPart(i, record, record.shots[0], frames)
            for i, record in enumerate(self.records)
            for frames in split_range(0, record.num_frames, batch=BATCH, most=COPY_FRAMES)
        ]
        return self.make_cams, parts, True

    def measure(self, what: str, placement: Placement) -> tuple[float, float]:
        """Return the seconds of some work, and those of the start-up."""
        start, items, holds_model = self.work(what)
        if placement.here:
            return seconds_of(partial(run, start, items, placement, holds_model)), 0.0
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            meetings = [Meeting(Path(place))] * WORKERS
            began = time.monotonic()
            ended = run(partial(start_meeting, start), [*meetings, *items], placement, holds_model)
            met = meetings[0].last("came")
            return ended - met, met - began

    def two_plain(self, what: str) -> float:
        """Return half the seconds of two processes that share nothing and each do all of the work."""
        shares = [self.work(what, f"fresh-{i}")[:2] for i in range(WORKERS)]
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            meeting = Meeting(Path(place))
            context = multiprocessing.get_context("spawn")
            pair = [context.Process(target=meet_and_run, args=(meeting, *share)) for share in shares]
            for process in pair:
                process.start()
            for process in pair:
                process.join()
            if any(process.exitcode for process in pair):
                raise SystemExit("error: a plain process failed")
            return (meeting.last("left") - meeting.last("came")) / WORKERS

    def transcode(self) -> float:
        """Return the seconds of the plain PyAV loop."""
        return seconds_of(lambda: [plain_transcode(path, self.folder / "plain.mp4") for path in self.clips])

    def plain_decord(self) -> float:
        """Return the seconds of the plain decord loop over the copies."""
        return seconds_of(lambda: [plain_decord(Path(str(record.cache_path))) for record in self.records])

    def our_reader(self) -> float:
        """Return the seconds of our reader over the copies."""
        return seconds_of(lambda: [self._read(record) for record in self.records])

    def _read(self, record: VideoRecord) -> None:
        readers = OpenReaders(SIZE)
        for start in range(0, record.num_frames, BATCH):
            readers.read(record, range(start, min(start + BATCH, record.num_frames)))


def run(start: Callable, items: list, placement: Placement, holds_model: bool) -> float:
    """Do the work, and return the time of the last result; after it the workers only end."""
    ended = 0.0
    for result in ordered_map(start, items, placement=placement, time_limit_s=600.0, holds_model=holds_model):
        if isinstance(result, ItemFailure):
            raise SystemExit(result.reason)
        ended = time.monotonic()
    return ended


def start_checking() -> Callable:
    return check_video


@dataclass(frozen=True)
class Meeting:
    """An item of work that ends when every worker has one; each leaves a mark in a folder."""

    place: Path

    def attend(self) -> None:
        """Wait for the other workers."""
        (self.place / f"{os.getpid()}.came").write_text(str(time.monotonic()))
        while len(list(self.place.glob("*.came"))) < WORKERS:
            time.sleep(0.002)

    def leave(self) -> None:
        """Note that this process is done."""
        (self.place / f"{os.getpid()}.left").write_text(str(time.monotonic()))

    def last(self, mark: str) -> float:
        """Return when the last one ``came`` or ``left``, by ``time.monotonic``, which all processes share."""
        return max(float(path.read_text()) for path in self.place.glob(f"*.{mark}"))


def start_meeting(start: Callable) -> Callable:
    return partial(meet_or_work, start())


def meet_or_work(work: Callable, item: object) -> object:
    return item.attend() if isinstance(item, Meeting) else work(item)


def meet_and_run(meeting: Meeting, start: Callable, items: list) -> None:
    torch.set_num_threads(1)
    work = start()
    meeting.attend()
    for item in items:
        work(item)
    meeting.leave()


def seconds_of(work: Callable[[], object]) -> float:
    return timed(work)[1]


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
    for start in range(0, len(reader), BATCH):
        frames = reader.get_batch(list(range(start, min(start + BATCH, len(reader))))).asnumpy()
        torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--work", nargs="+", choices=("prepare", "cams"), default=("prepare", "cams"))
    parser.add_argument("--without-ray", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    placements = {name: p for name, p in PLACEMENTS.items() if not (p.ray and options.without_ray)}
    bench = Bench(options.videos, options.clips, options.backbone)
    facts = f"{options.backbone}, {len(bench.clips)} clips, {bench.frames} frames, {options.rounds} rounds"
    print(header(facts, packages=("av", "decord", "ray")), end="\n\n")
    timings: Timings[tuple[str, str]] = Timings()
    try:
        for _ in range(options.rounds):
            for name, work in (("PyAV transcode", bench.transcode), ("decord", bench.plain_decord)):
                timings.add((name, "plain loop"), work())
            timings.add(("decord", "our reader"), bench.our_reader())
            for what in options.work:
                timings.add((what, PLAIN), bench.two_plain(what))
                for name, placement in placements.items():
                    took, start_up = bench.measure(what, placement)
                    timings.add((f"{what}, start-up", name), start_up)
                    timings.add((what, name), took)
    finally:
        shutil.rmtree(bench.folder)
    show(timings.medians(), bench.frames)
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")


def show(seconds: dict[tuple[str, str], float], frames: int) -> None:
    columns = ("frames/s", "of 2 processors", "of 2 plain processes", "start-up s")
    print(table_head("work", "where", *columns, text_columns=2))
    for (what, where), took in seconds.items():
        if what.endswith("start-up"):
            continue
        single, plain = seconds.get((what, "this process"), took), seconds.get((what, PLAIN), took)
        shares = (f"{single / took / WORKERS:.0%}", f"{plain / took:.0%}") if "2" in where else ("-", "-")
        start_up = seconds.get((f"{what}, start-up", where), 0.0)
        print(table_row(what, where, f"{frames / took:.0f}", *shares, f"{start_up:.1f}"))


if __name__ == "__main__":
    import parallel as this  # workers import what they are given, so it must not be in __main__

    this.main()
