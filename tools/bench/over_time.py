"""Boxes over time on real clips: CorLoc and steadiness before and after smoothing, and is an absent object noticed?

    .venv/bin/python tools/bench/over_time.py RUN... --device cpu

Runs are finished runs on the same videos (seeds of one method); rows are means ± sd over them. Every frame of the test
videos is localized once, for the class of its tag, at the run's own map threshold; all rows are made of these boxes.
Steadiness is that of `tcam evaluate` (lower is steadier). Absence: the same frames, asked for each class that is not
their tag; the level is the run's own (`--min-score auto`, of validation frames). Test boxes choose nothing here.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, stdev

import torch

from pipelines.evaluation.method_evaluator import EvaluatorSettings, MethodEvaluator
from pipelines.inference.frames import find_boxes
from pipelines.models.engine import FrameMaps
from pipelines.models.run import Run, load_localizers, load_run, main_localizer
from pipelines.models.thresholds import read_thresholds
from pipelines.run.console import progress_bar
from pipelines.run.environment import processor_name
from pipelines.training.validation import Validator
from tcam.boxes.over_time import BoxFollower, OverTime, presence_of
from tcam.types import Box, FrameBox, FrameTruth, VideoRecord
from tcam.video.dataset import stream_original

WAYS = {
    "each frame alone": OverTime(),
    "1 euro, 2 Hz": OverTime(2.0),
    "1 euro, 1 Hz": OverTime(1.0),
    "1 euro, 0.5 Hz": OverTime(0.5),
    "1 euro, 0.2 Hz": OverTime(0.2),
    "exponential, 2 Hz": OverTime(2.0, speed_gain=0.0),
    "exponential, 0.5 Hz": OverTime(0.5, speed_gain=0.0),
}
"""Ways to follow boxes: cutoff at rest, and whether it grows with speed."""
COLUMNS = ("CorLoc", "fragments", "centre", "scale and ratio")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in WAYS}
    levels: list[float] = []
    kept: list[float] = []
    noticed: list[float] = []
    for folder in options.runs:
        run = load_run(folder, device=options.device)
        found, absent, level = localize(run)
        for name, settings in WAYS.items():
            rows[name].append(judge(run, found, settings))
        levels.append(level)
        present = [presence_of(frame.class_score, frame.map_peak) for frames in found.values() for frame in frames]
        kept.append(100 * fmean(value >= level for value in present))
        noticed.append(100 * fmean(value < level for value in absent))
    print(f"{len(options.runs)} runs, {processor_name()}, {os.cpu_count()} processors, torch {torch.__version__}\n")
    print("| boxes | " + " | ".join(COLUMNS) + " |\n|---|" + "---:|" * len(COLUMNS))
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(map(spread, zip(*values, strict=True))) + " |")
    print(f"\nlevel of presence {spread(levels, digits=3)}: {spread(kept)} % of frames keep their class;")
    print(f"where a class is asked for that the video does not hold, {spread(noticed)} % of frames say so")


def localize(run: Run) -> tuple[dict[VideoRecord, list[FrameBox]], list[float], float]:
    """Return the boxes for each video's tag, the presence of all other classes, and the run's level of presence."""
    name = main_localizer(run)
    localizer = load_localizers(run)[name]
    threshold = read_thresholds(run.folder / "evaluation" / "thresholds.json")[0][name]
    level = Validator(run.index, run.truth, settings=run.config.evaluation, size=run.input_size).presence(localizer)
    found: dict[VideoRecord, list[FrameBox]] = {}
    absent: list[float] = []
    with progress_bar("note") as bar:
        records = run.index.of_split("test")
        task = bar.add_task(run.folder.name, total=len(records), note="")
        for record in records:
            frames, found[record] = stream_original(record, size=run.input_size), []
            while chunk := list(itertools.islice(frames, 8)):
                labels = torch.full((len(chunk),), record.label)
                seen = localizer(torch.stack([torch.from_numpy(frame.pixels) for frame in chunk]), labels)
                probabilities = seen.probabilities.float().cpu()
                maps = FrameMaps(seen.maps.cpu().numpy(), probabilities.numpy(), labels.numpy())
                boxes = find_boxes(maps, record.video_id, chunk, threshold=threshold, class_names=run.index.class_names)
                found[record] += [frame.box for frame in boxes]
                for frame, scores in zip(found[record][-len(chunk) :], probabilities.tolist(), strict=True):
                    del scores[record.label]
                    absent += [presence_of(score, frame.map_peak) for score in scores]
            bar.advance(task)
    return found, absent, level or 0.0


def judge(run: Run, found: dict[VideoRecord, list[FrameBox]], settings: OverTime) -> tuple[float, ...]:
    """Return CorLoc (macro), fragments, centre, scale and ratio of boxes followed over time."""
    shared = EvaluatorSettings(run.index.class_names, run.config.evaluation.iou_threshold, "largest")
    evaluator = MethodEvaluator("boxes", shared, [0.0], 0.0)
    truth = {(item.video_id, item.frame_index): item for item in run.truth if item.boxes}
    for record, frames in found.items():
        follow = BoxFollower(settings)
        followed = [follow(frame, record.size) for frame in frames]
        pairs = [(truth.get((record.video_id, frame.frame_index)), frame.box) for frame in followed]
        judged: list[tuple[FrameTruth, Box | None]] = [(item, box) for item, box in pairs if item is not None]
        edges = torch.tensor([[torch.nan] * 4 if box is None else list(box) for _, box in judged])
        evaluator.add_boxes([item for item, _ in judged], record.size, edges)
    steady = evaluator.stability.compute()
    return evaluator.corloc.table("none").macro, steady.fragment, steady.centre, steady.scale_ratio


def spread(values: Iterable[float], *, digits: int = 1) -> str:
    numbers = list(values)
    return f"{fmean(numbers):.{digits}f}" + (f" ± {stdev(numbers):.{digits}f}" if len(numbers) > 1 else "")


if __name__ == "__main__":
    main()
