"""``tcam demo``: the whole pipeline on synthetic tagged videos, from random weights, offline, in minutes."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path

from pipelines.commands.predict import predict_sources
from pipelines.config.schema import load_config, save_config
from pipelines.evaluation.printing import print_table
from pipelines.evaluation.results import Rows
from pipelines.inference.outputs import check_output_folder, mark_output_folder
from pipelines.models.localizer import NetworkLocalizer
from pipelines.models.run import Run, load_localizers, load_run
from pipelines.models.thresholds import read_thresholds
from pipelines.pipeline import train_run
from pipelines.report.page import write_report
from pipelines.report.run import MOST_PICTURES, draw_maps
from pipelines.run.console import console
from pipelines.run.environment import describe_environment
from pipelines.run.files import write_json
from pipelines.run.folder import create_run
from pipelines.synthetic.videos import write_synthetic_videos
from tcam.metrics.corloc import CorLocResult
from tcam.video.data_folder.scan import scan_class_folders

BOX_EVERY = 3
"""Interval in frames between annotated frames of the synthetic videos; other frames are not evaluated."""

SETTINGS = (
    "model.backbone=resnet10t",
    "model.levels_used=4",
    "model.weights=random",
    "model.output_stride=8",
    "model.decoder_channels=[48,32,24,16]",
    "input.resize=112",
    "input.crop=96",
    "classifier.epochs=6",
    "classifier.frames_per_shot=10",
    "classifier.frame_limit=1.0",
    "classifier.lr=0.05",
    "classifier.late_lr_ratio=1.0",
    "classifier.lr_step=3",
    "classifier.lr_gamma=0.5",
    "localizer.epochs=6",
    "localizer.frame_limit=1.0",
    "localizer.seeds.background_fraction=0.5",
    "localizer.seeds.foreground_fraction=0.3",
    "evaluation.selection_frames=4",
)
"""Differences from the published settings: a small network trained from random weights on a laptop."""

SETTINGS_OF = {
    "tcam": ("localizer.frames_per_shot=6",),
    "colocam": (
        "localizer.frames_per_shot=2",
        "localizer.seeds.region=otsu",
        "localizer.seeds.box_mask=false",
        "localizer.joint.weight=1.0",
    ),
}
"""Differences between the methods besides their defaults: a sequence has four frames, and with such
clean seeds the published joint weight of 4 saturates the maps (validation CorLoc 83 against 96)."""


_FILES = ("boxes.csv", "boxes", "env.json", "report", "runs", "cache", "overlay")


def run_demo(output: Path, *, seed: int, device: str, quiet: bool) -> None:
    """Write videos, train CAM, TCAM and CoLo-CAM, evaluate, predict.

    Writes videos, runs/ (one run per method; the second reuses the classifier and CAMs of the first), report/ and
    boxes.csv into the folder.

    Raises:
        TcamError: the folder cannot be written or the device does not exist.
    """
    console.quiet = quiet
    check_output_folder(output, _FILES, [], flag="-o")
    mark_output_folder(output)
    began = time.monotonic()
    videos = output / f"videos-seed{seed}"
    if not (videos / "boxes.csv").is_file():
        console.print(f"writing synthetic videos to {videos}")
        write_synthetic_videos(videos, box_every=BOX_EVERY, seed=seed)
    environment = {**describe_environment(), "videos": str(videos.resolve())}
    tables: dict[Path, Rows] = {}
    for method, own in SETTINGS_OF.items():
        settings = [f"method={method}", *SETTINGS, *own, f"seed={seed}", f"device={device}"]
        config = load_config(None, settings)
        folder = create_run(output / "runs", f"demo-{method}")
        console.print(f"run folder: {folder}")
        save_config(config, folder / "config.yaml")
        write_json(folder / "env.json", environment)
        tables[folder] = train_run(videos, config, folder, cache_dir=output / "cache").rows
    rows = join_tables(list(tables.values()))
    print_table(rows, "synthetic test videos (numbers of this run)")
    write_json(output / "env.json", environment)
    report = write_comparison(output, rows, [load_run(folder, device=device) for folder in tables])
    source = next(entry.path for entry in scan_class_folders(videos).entries if entry.split == "test")
    predict_sources(folder, str(source), output=str(output / "boxes.csv"), device=device, quiet=quiet)
    console.print(f"took {time.monotonic() - began:.0f} s\n")
    console.print(next_steps(output, report, folder, source.parent), soft_wrap=True)


def next_steps(output: Path, report: Path, run: Path, videos: Path) -> str:
    """Return the text at the end of the demo: where to look, and what to try next."""
    return f"""Look at
  {report}: scores, frames with their boxes, curves (open it in a browser)
  {report.with_name("overlay.mp4")}: a test video with its boxes
  {output / "boxes.csv"}: the same boxes, one row per frame
Try next
  tcam predict {run} --source {videos} -o {output / "boxes"}/
  tcam train --videos VIDEOS    (your own videos, in one folder per tag: docs/own-videos.md)
  tcam doctor                   (what this machine has, and how to mend what it lacks)
  docs/README.md                (a guide for each task)"""


def join_tables(tables: Sequence[Rows]) -> list[tuple[str, CorLocResult]]:
    """Merge tables of the same test videos; a row that several have, such as the CAM's, is kept once.

    Rows keep their order within each way of choosing the threshold: baselines, validation, oracle.
    """
    rows: dict[str, dict[str, CorLocResult]] = {}
    for name, result in itertools.chain.from_iterable(tables):
        rows.setdefault(result.protocol.threshold_choice, {}).setdefault(name, result)
    return [row for alike in rows.values() for row in alike.items()]


def write_comparison(folder: Path, rows: Rows, runs: Sequence[Run]) -> Path:
    """Write ``folder/report`` for runs on the same videos: table, pictures of each localizer, video of the last run.

    Returns the path of the page.
    """
    localizers: dict[str, NetworkLocalizer] = {}
    thresholds: dict[str, float] = {}
    for run in runs:
        localizers |= load_localizers(run)
        thresholds |= read_thresholds(run.folder / "evaluation" / "thresholds.json")[0]
    overlay = run.folder / "report" / "overlay.mp4"
    pictures = draw_maps(
        run.index.of_split("test")[:MOST_PICTURES],
        run.truth,
        localizers,
        thresholds,
        class_names=run.index.class_names,
        size=run.input_size,
    )
    return write_report(
        folder,
        title=f"{folder.resolve().name}: test split",
        rows=rows,
        pictures=pictures,
        video=overlay if overlay.is_file() else None,
        metadata=json.loads((folder / "env.json").read_text(encoding="utf-8")),
    )
