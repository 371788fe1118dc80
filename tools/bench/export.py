"""Compare a run in PyTorch with its exported files on the validation clips: maps, boxes, CorLoc, time.

    .venv/bin/python tools/bench/export.py runs/tcam-001 --videos ../shared/data/clips/car

PyTorch computes in float32 and in bfloat16. The run is exported as ONNX, OpenVINO, and OpenVINO with 8 bits, which is
calibrated on ``--videos``: name training clips. All engines take turns on the same labelled frames, with one thread.
Boxes are at the run's own map threshold; CorLoc is the mean over classes. If the run's precision is ``auto``, OpenVINO
computes in bfloat16 on a processor that can. Needs the extra `export`.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch and the other engines load

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import Timings, header, table_head, table_row

from pipelines.evaluation.sampling import spread_out
from pipelines.models.device import Compute
from pipelines.models.engine import Engine
from pipelines.models.export import ExportRequest, export_run
from pipelines.models.localizer import NetworkLocalizer
from pipelines.models.open import open_model
from pipelines.models.run import Run, load_run
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
    parser.add_argument("--videos", required=True, help="to calibrate OpenVINO with 8 bits")
    parser.add_argument("--frames", type=int, default=10, help="per validation video")
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
    """Measure the engines in turns, and print a row for each."""
    frames = sum(len(batch[2]) for batch in batches)
    facts = f"{frames} validation frames of {len(batches)} videos, map threshold {threshold:.2f}"
    print(header(f"{run.folder.name}: {facts}", packages=("onnxruntime", "openvino")), end="\n\n")
    evaluators = {name: CorLocEvaluator(run.index.class_names, [threshold], iou_threshold=0.5) for name in engines}
    timings: Timings[str] = Timings()
    same, furthest = dict.fromkeys(engines, 0), dict.fromkeys(engines, 0.0)
    for record, truth, pixels in batches:
        first = None
        for name, engine in engines.items():
            engine.find(pixels[:1], record.label)  # the processor's caches hold data of another engine
            found = timings.time(name, partial(engine.find, pixels, record.label), per=len(pixels))
            boxes = boxes_at_thresholds(torch.from_numpy(found.maps), [threshold])
            first = first or (found.maps, boxes)
            same[name] += int((boxes == first[1]).all(dim=-1).sum())
            furthest[name] = max(furthest[name], float(np.abs(found.maps - first[0]).max()))
            scaled = scale_boxes(boxes, pixels.shape[2:], record.size)
            evaluators[name].add(truth, match_boxes(scaled, truth, record.size).value)
    own = timings.median(FIRST)
    print(table_head("engine", "CorLoc", "boxes equal to the first's", "maps within", "ms per frame", "times as fast"))
    for name, took in timings.medians().items():
        corloc, equal = evaluators[name].table("oracle").macro, f"{same[name]} of {frames}"
        speed = f"{1000 * took:.1f}", f"{own / took:.2f}"
        print(table_row(name, f"{corloc:.1f}", equal, f"{furthest[name]:.1e}", *speed))


if __name__ == "__main__":
    main()
