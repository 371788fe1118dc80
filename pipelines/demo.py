"""``tcam demo``: the whole pipeline on synthetic tagged videos, from random weights, offline, in minutes."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from pipelines.commands import PredictRequest, predict_sources
from pipelines.config import load_config, save_config
from pipelines.evaluate import print_table
from pipelines.files import write_json
from pipelines.runlog import console, create_run, describe_environment
from pipelines.stages import train_run
from pipelines.synthetic import write_synthetic_videos
from tcam.video.folders import scan_class_folders

SETTINGS = (
    "method=tcam",
    "model.backbone=resnet10t",
    "model.levels_used=4",
    "model.weights=random",
    "model.output_stride=8",
    "model.decoder_channels=[48,32,24,16]",
    "input.resize=112",
    "input.crop=96",
    "classifier.epochs=10",
    "classifier.frames_per_shot=10",
    "classifier.frame_limit=1.0",
    "classifier.lr=0.05",
    "classifier.late_lr_ratio=1.0",
    "classifier.lr_step=3",
    "classifier.lr_gamma=0.5",
    "localizer.epochs=6",
    "localizer.frames_per_shot=6",
    "localizer.frame_limit=1.0",
    "localizer.seeds.background_fraction=0.5",
    "localizer.seeds.foreground_fraction=0.3",
    "evaluation.selection_frames=4",
)
"""What differs from the published settings: a small network that learns from nothing on a laptop."""


def run_demo(output: Path, *, seed: int, device: str, quiet: bool) -> None:
    """Write videos, train CAM and TCAM, evaluate, predict; leaves videos, runs/, report/ and boxes.csv in the folder.

    Raises:
        TcamError: the folder cannot be written or the device does not exist.
    """
    console.quiet = quiet
    began = time.monotonic()
    config = load_config(None, [*SETTINGS, f"seed={seed}", f"device={device}"])
    videos = output / f"videos-seed{seed}"
    if not (videos / "boxes.csv").is_file():
        console.print(f"writing synthetic videos to {videos}")
        write_synthetic_videos(videos, seed=seed)
    folder = create_run(output / "runs", "demo")
    save_config(config, folder / "config.yaml")
    write_json(folder / "env.json", {**describe_environment(), "videos": str(videos.resolve())})
    result = train_run(videos, config, folder, cache_dir=output / "cache")
    print_table(result.rows, "synthetic test videos (numbers of this run)")
    report = output / "report"
    shutil.copytree(folder / "report", report, dirs_exist_ok=True)
    source = next(entry.path for entry in scan_class_folders(videos).entries if entry.split == "test")
    request = PredictRequest(
        run=folder,
        source=str(source),
        output=str(output / "boxes.csv"),
        save_video=None,
        threshold=None,
        class_name=None,
        batch=8,
        device=device,
    )
    predict_sources(request, quiet=quiet)
    console.print(f"report: {report / 'report.html'}\noverlay: {report / 'overlay.mp4'}\nboxes: {output / 'boxes.csv'}")
    console.print(f"took {time.monotonic() - began:.0f} s")
