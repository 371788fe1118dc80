"""What ``tcam prepare`` and ``tcam cams`` do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipelines.config.schema import load_config
from pipelines.data.sources import resolve_videos
from pipelines.data.stage import prepare_data
from pipelines.inference.outputs import check_output_folder, mark_output_folder
from pipelines.models.run import load_run
from pipelines.parallel.placement import Placement
from pipelines.run.console import console, print_text_table
from pipelines.run.folder import open_run
from pipelines.run.lock import locked
from pipelines.run.places import cache_folder
from pipelines.run.stage import run_stage
from pipelines.training.run_stage import make_cams
from tcam.errors import WeightsError
from tcam.files import sweep_leftovers
from tcam.types import SPLITS

PREPARED_FILES = ("index.json", "truth.csv", "errors.csv", "background.json")


def prepare_videos(
    source: Path, config: Path | None, overrides: Sequence[str], *, output: Path, placement: Placement, quiet: bool
) -> int:
    """Probe and cache videos, write their index to ``output``, print the splits; return the number of broken videos."""
    console.quiet = quiet
    settings = load_config(config, list(overrides))
    videos = resolve_videos(source)
    check_output_folder(output, PREPARED_FILES, [videos], flag="-o")
    mark_output_folder(output)
    prepared = prepare_data(videos, settings, output, cache_dir=cache_folder(), placement=placement.for_probing())
    counts = Counter((record.label, record.split) for record in prepared.index.records)
    rows = [
        [name, *(str(counts[label, split]) for split in SPLITS)]
        for label, name in enumerate(prepared.index.class_names)
    ]
    print_text_table(f"videos of {source}", ["class", *SPLITS], rows)
    console.print(f"index: {output / 'index.json'}; clean copies: {cache_folder()}")
    return len(prepared.failures)


def cache_cams(folder: Path, *, device: str, placement: Placement, quiet: bool) -> None:
    """Compute the CAM cache of a run, unless it exists.

    Raises:
        DataError: another process works in the run, or a training video cannot be read.
        WeightsError: the classifier is not trained yet.
    """
    console.quiet = quiet
    run = load_run(open_run(folder), device=device)
    with locked(folder):
        sweep_leftovers(folder)
        if not run.classifier_stage().done:
            raise WeightsError(f"{folder} has no trained classifier: finish it with 'tcam train --resume {folder}'")
        run_stage(run.cams_stage(), lambda: make_cams(run, placement))
    console.print(f"CAM cache: {run.cams_stage().folder}; next: tcam train --resume {folder}")
