"""Stage "prepare" of a run: write index, boxes and errors of its videos, and of those without any object."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipelines.config.schema import RunConfig
from pipelines.data.failures import write_failures
from pipelines.data.negatives import prepare_background
from pipelines.data.prepare import Prepared
from pipelines.data.sources import read_source
from pipelines.parallel.placement import Placement
from pipelines.run.console import console
from tcam.video.data_folder.find import summarize_passed
from tcam.video.index import write_index, write_truth

MOST_WARNINGS = 20


def prepare_data(
    videos: Path,
    config: RunConfig,
    folder: Path,
    *,
    cache_dir: Path | None,
    for_training: bool = True,
    placement: Placement | None = None,
) -> Prepared:
    """Probe, cache and index the videos; write index.json, truth.csv and errors.csv into the folder."""
    prepared = read_source(videos, config, cache_dir=cache_dir, for_training=for_training, placement=placement)
    folder.mkdir(parents=True, exist_ok=True)
    write_index(prepared.index, folder / "index.json")
    write_truth(prepared.truth, folder / "truth.csv")
    if for_training and config.data.background is not None:
        background = prepare_background(config, folder, cache_dir=cache_dir, placement=placement)
        prepared = replace(prepared, failures=prepared.failures + background.failures)
    write_failures(prepared.failures, folder / "errors.csv")
    console.print(f"{len(prepared.index.records)} videos: {prepared.split_note}")
    passed = summarize_passed(prepared.passed)
    if passed is not None:
        console.print(f"{passed}; 'tcam data check' lists all", markup=False)
    for warning in prepared.warnings[:MOST_WARNINGS]:
        console.print(f"warning: {warning.video_id}: {warning.reason}", markup=False)
    if len(prepared.warnings) > MOST_WARNINGS:
        console.print(f"and {len(prepared.warnings) - MOST_WARNINGS} more warnings; 'tcam data check' lists all")
    for failure in prepared.failures[:5]:
        console.print(f"left out {failure.video_id}: {failure.reason}", markup=False)
    if prepared.failures:
        console.print(f"{len(prepared.failures)} videos left out, listed in {folder / 'errors.csv'}")
    return prepared
