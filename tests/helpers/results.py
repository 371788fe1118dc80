"""Hand-made results of an evaluation in the form that `tcam evaluate` stores them; helpers of these tests."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from pipelines.config.schema import save_config
from tcam.metrics.corloc import CorLocResult
from tcam.types import CorLocProtocol, ThresholdChoice
from tests.helpers.tiny import tiny_config

Overlaps = Mapping[str, Sequence[float]]
"""IoU of a method's box in frames 0, 5, 10, ... by video ``class/name.mp4``."""

FLOOR = "centre box (50 %)"
OVERLAPS: dict[str, Overlaps] = {
    FLOOR: {"cat/tom.mp4": [0.1, 0.2, 0.3, 0.6], "dog/rex.mp4": [0.0, 0.0, 0.7], "dog/bo.mp4": [0.1, 0.1]},
    "layercam": {"cat/tom.mp4": [0.4, 0.6, 0.4, 0.6], "dog/rex.mp4": [0.0, 0.55, 0.7], "dog/bo.mp4": [0.2, 0.4]},
    "tcam": {"cat/tom.mp4": [0.6, 0.7, 0.45, 0.9], "dog/rex.mp4": [0.0, 0.55, 0.8], "dog/bo.mp4": [0.6, 0.4]},
}


def write_results(folder: Path, overlaps: Mapping[str, Overlaps] = OVERLAPS, *, iou_threshold: float = 0.5) -> Path:
    """Write ``results.json`` and ``per_frame.parquet``; methods named ``... box ...`` are baselines."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = frame_table(overlaps)
    frames.to_parquet(folder / "per_frame.parquet")
    first = frames[frames["method"] == frames["method"][0]]
    learnt = [method for method in overlaps if "box" not in method]
    stored = {
        "format": 1,
        "split": "test",
        "class_names": sorted(frames["class"].unique()),
        "frames_per_class": first.groupby("class").size().to_dict(),
        "videos_per_class": first.groupby("class")["video"].nunique().to_dict(),
        "num_frames": len(first),
        "num_videos": int(first["video"].nunique()),
        "rows": [
            score_row(method, values, choice, iou_threshold)
            for method, values in overlaps.items()
            for choice in (("validation", "oracle per class") if method in learnt else ("none",))
        ],
        "metrics": [
            {"method": m, "name": "MaxBoxAcc", "value": 61.25, "unit": "%", "protocol": "IoU >= 0.5, best threshold"}
            for m in learnt
        ]
        + [{"method": "tcam", "name": "PxAP", "value": None, "unit": "", "protocol": "needs masks"}],
        "curves": {m: curve(k) for k, m in enumerate(learnt)},
        "thresholds": dict.fromkeys(learnt, 0.5),
        "chosen_on": "validation",
    }
    (folder / "results.json").write_text(json.dumps(stored))
    return folder


def frame_table(overlaps: Mapping[str, Overlaps]) -> pd.DataFrame:
    """One row per method and frame of 200 x 100 pixels; a box with IoU 0 is missing."""
    rows = []
    for method, videos in overlaps.items():
        for video, values in videos.items():
            for i, value in enumerate(values):
                left = 20.0 + 10 * i
                found = {"x0": left, "y0": 20.0, "x1": left + 100 * value, "y1": 70.0}
                rows.append(
                    {
                        "method": method,
                        "video": video,
                        "frame": 5 * i,
                        "class": video.split("/", maxsplit=1)[0],
                        "width": 200,
                        "height": 100,
                        "num_truth": 1,
                        "truth_area": 0.05 if video.startswith("dog") else 0.3,
                        "tx0": left,
                        "ty0": 20.0,
                        "tx1": left + 100,
                        "ty1": 70.0,
                        **(found if value else dict.fromkeys(found, float("nan"))),
                        "iou": value,
                    }
                )
    return pd.DataFrame(rows)


def score_row(method: str, overlaps: Overlaps, choice: ThresholdChoice, iou_threshold: float) -> dict[str, object]:
    """CorLoc as results.json holds it."""
    right = {video: [value >= iou_threshold for value in values] for video, values in overlaps.items()}
    classes: dict[str, list[bool]] = {}
    for video, values in right.items():
        classes.setdefault(video.split("/", maxsplit=1)[0], []).extend(values)
    per_class = {name: 100 * statistics.fmean(values) for name, values in sorted(classes.items())}
    every = [value for values in right.values() for value in values]
    result = CorLocResult(
        CorLocProtocol(choice, iou_threshold),
        threshold=0.5 if choice == "validation" else None,
        per_class=per_class,
        macro=statistics.fmean(per_class.values()),
        micro=100 * statistics.fmean(every),
        num_frames=len(every),
        per_video={video: 100 * statistics.fmean(values) for video, values in right.items()},
        interval=None if choice.startswith("oracle") else (12.5, 87.5),
    )
    kind = "baseline" if choice == "none" else "localizer"
    return {"method": method, "kind": kind, "metric": "CorLoc", **result.as_dict()}


def curve(k: int) -> dict[str, object]:
    """A curve over 11 thresholds; the class "dog" has gaps."""
    thresholds = [i / 10 for i in range(11)]
    macro = [float(10 * k + 5 * i) for i in range(11)]
    gaps = [None if i % 5 == 4 else value for i, value in enumerate(macro)]
    return {"thresholds": thresholds, "macro": macro, "micro": macro, "per_class": {"cat": macro, "dog": gaps}}


def write_run(folder: Path, overlaps: Mapping[str, Overlaps] = OVERLAPS, *settings: str, **options: float) -> Path:
    """Write as much of a finished run as pages are made from: settings, results, a training log."""
    write_results(folder / "evaluation", overlaps, **options)
    save_config(tiny_config(*settings), folder / "config.yaml")
    lines = [{"stage": "localizer", "epoch": i, "seeds": 1 / i, "crf": -i, "val_corloc": 40 + i} for i in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
