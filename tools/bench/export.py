"""A run in PyTorch, float32 and 16 bits, beside its exported files: maps, boxes, CorLoc on its validation clips, time.

    .venv/bin/python tools/bench/export.py runs/tcam-001 --videos ../shared/data/clips/car

Writes the run as ONNX, OpenVINO, and OpenVINO with 8 bits (calibrated on the videos given: take training clips), and
lets all of them look at the same labelled frames in turns. Boxes at the run's own map threshold; CorLoc is the mean
over classes; one thread. Of a run whose precision is auto, OpenVINO computes in bfloat16 where the processor does.
Needs the extra `export`.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch and the other engines load

import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch

from pipelines.evaluation.sampling import spread_out
from pipelines.models.device import Compute
from pipelines.models.engine import Engine
from pipelines.models.export import ExportRequest, export_run
from pipelines.models.localizer import NetworkLocalizer
from pipelines.models.open import open_model
from pipelines.models.run import Run, load_run
from pipelines.run.environment import processor_name
from tcam.boxes.boxes import scale_boxes
from tcam.boxes.extract import boxes_at_thresholds
from tcam.metrics.corloc import CorLocEvaluator
from tcam.metrics.rules import match_boxes
from tcam.types import FrameTruth, VideoRecord
from tcam.video.dataset import OpenReaders

FIRST = "PyTorch float32"
Batch = tuple[VideoRecord, list[FrameTruth], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--videos", required=True, help="to calibrate 8 bits on")
    parser.add_argument("--frames", type=int, default=10, help="of every validation video")
    options = parser.parse_args()
    run = load_run(options.run, device="cpu")
    batches = read_batches(run, options.frames)
    with tempfile.TemporaryDirectory() as folder:
        files = export_all(options.run, Path(folder), options.videos)
        model = open_model(options.run, device="cpu")
        plain = model.packed.unpack()
        assert isinstance(plain, NetworkLocalizer)
        kinds = {FIRST: torch.float32, "PyTorch bfloat16": torch.bfloat16}
        engines: dict[str, Engine] = {
            name: replace(plain, compute=Compute(torch.device("cpu"), dtype)) for name, dtype in kinds.items()
        }
        engines |= {name: open_model(path, device="cpu").packed.unpack() for name, path in files.items()}
        report(run, engines, batches, model.threshold)


def export_all(run: Path, folder: Path, videos: str) -> dict[str, Path]:
    """Write the run in each format."""
    wanted = {
        "ONNX Runtime": ExportRequest(run, "onnx", folder / "run.onnx"),
        "OpenVINO": ExportRequest(run, "openvino", folder / "run.xml"),
        "OpenVINO int8": ExportRequest(run, "openvino", folder / "int8.xml", calibrate=videos),
    }
    return {name: export_run(request, quiet=True) for name, request in wanted.items()}


def read_batches(run: Run, wanted: int) -> list[Batch]:
    """Read labelled frames of the validation videos, a batch per video."""
    truth = {(item.video_id, item.frame_index): item for item in run.truth if item.boxes}
    batches = []
    readers = OpenReaders(run.input_size)
    for record in run.index.of_split("val"):
        labelled = [frame for frame in range(record.num_frames) if (record.video_id, frame) in truth]
        chosen = [labelled[i] for i in spread_out(len(labelled), wanted)]
        if chosen:
            pixels = np.asarray(readers.read(record, chosen))
            batches.append((record, [truth[record.video_id, frame] for frame in chosen], pixels))
    return batches


def report(run: Run, engines: dict[str, Engine], batches: list[Batch], threshold: float) -> None:
    """Let the engines take turns, and print a row for each."""
    frames = sum(len(batch[2]) for batch in batches)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    print(f"commit {commit.stdout.strip()}, {processor_name()}, one thread, torch {torch.__version__}")
    print(f"{run.folder.name}: {frames} validation frames of {len(batches)} videos, map threshold {threshold:.2f}\n")
    evaluators = {name: CorLocEvaluator(run.index.class_names, [threshold], iou_threshold=0.5) for name in engines}
    times: dict[str, list[float]] = {name: [] for name in engines}
    same, furthest = dict.fromkeys(engines, 0), dict.fromkeys(engines, 0.0)
    for record, truth, pixels in batches:
        first = None
        for name, engine in engines.items():
            engine.find(pixels[:1], record.label)  # another engine has just emptied the caches
            began = time.perf_counter()
            found = engine.find(pixels, record.label)
            times[name].append((time.perf_counter() - began) / len(pixels))
            boxes = boxes_at_thresholds(torch.from_numpy(found.maps), [threshold])
            first = first or (found.maps, boxes)
            same[name] += int((boxes == first[1]).all(dim=-1).sum())
            furthest[name] = max(furthest[name], float(np.abs(found.maps - first[0]).max()))
            scaled = scale_boxes(boxes, pixels.shape[2:], record.size)
            evaluators[name].add(truth, match_boxes(scaled, truth, record.size).value)
    own = median(times[FIRST])
    print("| engine | CorLoc | boxes equal to the first's | maps within | ms per frame | times as fast |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, taken in times.items():
        corloc, took = evaluators[name].table("oracle").macro, median(taken)
        equal = f"{same[name]} of {frames} | {furthest[name]:.1e}"
        print(f"| {name} | {corloc:.1f} | {equal} | {1000 * took:.1f} | {own / took:.2f} |")


if __name__ == "__main__":
    main()
