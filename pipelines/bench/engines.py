"""What ``tcam bench`` does: time the way from a file to boxes, stage by stage, with every engine available here.

The engines take turns batch by batch in one process, so that other load on the machine affects all of them equally.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Final, TypeVar

import numpy as np

from pipelines.data.find import find_files
from pipelines.inference.box_table import BoxSink, open_box_sink
from pipelines.inference.frames import find_boxes
from pipelines.models.engine import Engine, Model
from pipelines.models.exported import PackedExport
from pipelines.models.open import open_model
from pipelines.run.console import console, progress_bar
from tcam.errors import ConfigError, DataError, MissingPartError
from tcam.types import Size
from tcam.video.container import decode_in_order, open_container
from tcam.video.frame_files import ImageSequence, is_image_sequence
from tcam.video.pixels import FOLDER_FPS, FrameScaler, Orientation
from tcam.video.reader import DecodedFrame

T = TypeVar("T")
Start = Callable[[], Engine]
"""Loads an engine; raises ``MissingPartError`` if it is not available."""

STAGES: Final = ("decode", "prepare", "network", "box", "sink")
_FEWEST: Final = 3
"""Minimum number of batches; the first one only warms up."""


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """Flags of ``tcam bench``."""

    model: Path
    source: str
    frames: int
    batch: int
    device: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Some frames, and the time in ms to decode and to scale one of them."""

    frames: list[DecodedFrame]
    decode_ms: float
    prepare_ms: float


@dataclass(slots=True)
class Runner:
    """A loaded engine and its times in ms per frame, by stage; one value per batch.

    ``first_s`` is the time for loading and the first batch, ``memory_mb`` the memory that both added to the process.
    """

    engine: Engine
    first_s: float
    memory_mb: float | None
    ms: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    @property
    def total_ms(self) -> list[float]:
        """Sum of all stages, for each batch."""
        return [sum(stages) for stages in zip(*self.ms.values(), strict=True)]


def bench(request: BenchRequest, *, quiet: bool) -> str:
    """Measure, and return the table as Markdown.

    Raises:
        TcamError: the model or the source is missing, no engine can run, or the source is too short.
    """
    console.quiet = quiet
    path, *more = find_files(request.source)
    if more:
        raise ConfigError(f"--source {request.source}: expected one video, found {1 + len(more)}")
    model = open_model(request.model, device=request.device)
    frames = read_frames(path, model.size)
    batches = list(itertools.islice(group(frames, request.batch), max(_FEWEST, request.frames // request.batch)))
    if len(batches) < _FEWEST:
        raise DataError(f"--source {path}: expected {_FEWEST} batches of {request.batch} frames, found {len(batches)}")
    with tempfile.TemporaryDirectory() as folder:
        runners = dict(start_all(engines_of(request, model, Path(folder)), batches[0], model.class_names))
        if not runners:
            raise MissingPartError("no engine could be started; see above")
        measure(runners, batches[1:], model, Path(folder))
    return table_of(runners, path, request, frames=request.batch * (len(batches) - 1))


def read_frames(path: Path, size: Size) -> Iterator[Batch]:
    """Decode a video or a folder of images frame by frame, with times; scaling of images counts as decoding.

    Raises:
        VideoError: it cannot be read.
    """
    if is_image_sequence(path):
        with ImageSequence(path) as images:
            for index in range(len(images)):
                pixels, decode_ms = _timed(partial(images.read, index, size))
                yield Batch([DecodedFrame(index, index / FOLDER_FPS, pixels, None, size)], decode_ms, 0.0)
        return
    scale, orientation = FrameScaler(), Orientation()
    with open_container(path) as (container, stream):
        decoded = decode_in_order(container, stream, on_error=[])
        for index in itertools.count():
            frame, decode_ms = _timed(lambda: next(decoded, None))
            if frame is None:
                return
            orientation = Orientation.of_frame(frame) if index == 0 else orientation
            pixels, prepare_ms = _timed(partial(scale, frame, size, orientation))
            native = orientation.size((frame.height, frame.width))
            yield Batch([DecodedFrame(index, index / FOLDER_FPS, pixels, None, native)], decode_ms, prepare_ms)


def group(frames: Iterator[Batch], batch: int) -> Iterator[Batch]:
    """Group single frames into full batches, with the means of their times."""
    while len(some := list(itertools.islice(frames, batch))) == batch:
        decode_ms, prepare_ms = fmean(one.decode_ms for one in some), fmean(one.prepare_ms for one in some)
        yield Batch([one.frames[0] for one in some], decode_ms, prepare_ms)


def engines_of(request: BenchRequest, model: Model, folder: Path) -> Mapping[str, Start]:
    """Return the engines that a model can run on; for a run, exported files are written into the folder."""
    if isinstance(model.packed, PackedExport):
        return {model.packed.path.name: model.packed.unpack}
    from pipelines.bench.compared import engines_of_run

    return engines_of_run(request.model, folder, device=request.device, size=model.size, batch=request.batch)


def start_all(starts: Mapping[str, Start], first: Batch, names: Sequence[str]) -> Iterator[tuple[str, Runner]]:
    """Start engines one after the other, each with its first batch; report those that cannot start on stderr.

    ``names`` are the class names.
    """
    for name, start in starts.items():
        console.print(f"starting {name}")
        before, began = _memory_mb(), time.perf_counter()
        try:
            engine = start()
            maps = engine.find(np.stack([frame.pixels for frame in first.frames]), None)
            list(find_boxes(maps, "bench", first.frames, threshold=0.5, class_names=names))
        except (MissingPartError, ConfigError) as error:
            console.print(f"left out {name}: {error}")
            continue
        first_s, after = time.perf_counter() - began, _memory_mb()
        yield name, Runner(engine, first_s, None if after is None or before is None else max(0.0, after - before))


def measure(runners: Mapping[str, Runner], batches: Sequence[Batch], model: Model, folder: Path) -> None:
    """Run every batch on every engine in turn; a different engine goes first each time."""
    names = list(runners)
    with open_box_sink(str(folder / "boxes.jsonl"), metadata={}) as sink, progress_bar("note") as bar:
        task = bar.add_task("bench", total=len(batches), note="")
        for turn, batch in enumerate(batches):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                _look(runners[name], batch, model, sink)
            bar.advance(task)


def _look(runner: Runner, batch: Batch, model: Model, sink: BoxSink) -> None:
    def write() -> None:
        for item in found:
            sink.write(item.box, size=item.size, threshold=model.threshold)

    stacked, stack_ms = _timed(lambda: np.stack([frame.pixels for frame in batch.frames]))
    maps, network_ms = _timed(lambda: runner.engine.find(stacked, None))
    find = partial(find_boxes, maps, "bench", batch.frames, threshold=model.threshold, class_names=model.class_names)
    found, box_ms = _timed(lambda: list(find()))
    _, sink_ms = _timed(write)
    count = len(batch.frames)
    each = (batch.decode_ms, batch.prepare_ms + stack_ms / count, network_ms / count, box_ms / count, sink_ms / count)
    for stage, value in zip(STAGES, each, strict=True):
        runner.ms[stage].append(value)


def table_of(runners: Mapping[str, Runner], path: Path, request: BenchRequest, *, frames: int) -> str:
    """Return the table: medians over batches, with the 95th percentile in brackets."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS") or processors
    lines = [
        f"{path.name}: {frames} frames in batches of {request.batch}, {threads} threads; ms per frame, median (p95)",
        "",
        "| engine | " + " | ".join(STAGES) + " | all | frames/s | started in s | added MB |",
        "|---|" + "---:|" * (len(STAGES) + 4),
    ]
    for name, runner in runners.items():
        cells = [_spread(values) for values in (*runner.ms.values(), runner.total_ms)]
        memory = "-" if runner.memory_mb is None else f"{runner.memory_mb:.0f}"
        cells += [f"{1000 / median(runner.total_ms):.1f}", f"{runner.first_s:.1f}", memory]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({quantiles(values, n=20, method='inclusive')[-1]:.2f})"


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    result = work()
    return result, 1000 * (time.perf_counter() - began)


def _memory_mb() -> float | None:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
