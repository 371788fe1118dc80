"""Measure CorLoc and steadiness of boxes before and after smoothing over time, and whether an absent class is noticed.

    .venv/bin/python tools/bench/over_time.py RUN... --device cpu

The runs are finished runs on the same videos, such as seeds of one method. Rows are mean ± sample standard deviation
over them. Every frame of the test videos is localized once, for the class of its tag, at the run's own map threshold;
all rows use these boxes. Steadiness is measured as in `tcam evaluate`: lower is steadier. For absence the same frames
are searched for every other class; the level is the run's own, from validation frames (`--min-score auto`). No setting
is chosen with test boxes.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from statistics import fmean

import torch
from harness import header, spread, table_head, table_row

from pipelines.evaluation.method_evaluator import EvaluatorSettings, MethodEvaluator
from pipelines.inference.frames import find_boxes
from pipelines.models.engine import FrameMaps
from pipelines.models.run import Run, load_localizers, load_run, main_localizer
from pipelines.models.thresholds import read_thresholds
from pipelines.run.console import progress_bar
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
    print(header(f"{len(options.runs)} runs", device=str(run.compute.device)), end="\n\n")
    print(table_head("boxes", *COLUMNS))
    for name, values in rows.items():
        print(table_row(name, *map(spread, zip(*values, strict=True))))
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
        evaluator.update_boxes([item for item, _ in judged], record.size, edges)
    steady = evaluator.stability.compute()
    return evaluator.corloc.table("none").macro, steady.fragment, steady.centre, steady.scale_ratio


if __name__ == "__main__":
    main()
