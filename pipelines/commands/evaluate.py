"""What ``tcam evaluate`` does."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.commands.prepare import PREPARED_FILES
from pipelines.config.schema import load_config
from pipelines.data.sources import resolve_videos
from pipelines.data.stage import prepare_data
from pipelines.evaluation.metrics import list_metrics
from pipelines.evaluation.results import PER_FRAME, RESULTS, save_results
from pipelines.evaluation.score import ScoredSet, print_metrics, print_table, results_table
from pipelines.evaluation.stored import read_evaluation
from pipelines.inference.outputs import check_output_folder, mark_output_folder
from pipelines.models.localizer import refined_localizers
from pipelines.models.run import REFINED, Run, load_localizers, load_run, videos_of_run
from pipelines.models.thresholds import read_thresholds, save_thresholds
from pipelines.parallel.placement import AUTO, Placement
from pipelines.pipeline import choose_thresholds, picture_source, score_split
from pipelines.report.run import write_run_report
from pipelines.run.console import console
from pipelines.run.folder import open_run
from tcam.errors import ConfigError, DataError
from tcam.types import Components, FrameTruth, VideoIndex

EVALUATION_FILES = (*PREPARED_FILES, RESULTS, PER_FRAME, "report")


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """Flags of ``tcam evaluate``."""

    run: Path
    videos: Path | None
    split: str
    output: Path | None
    as_json: bool
    device: str
    benchmark: bool = False
    refine: bool = False
    ddt: bool = False
    overrides: tuple[str, ...] = ()
    placement: Placement = AUTO


def evaluate_run(request: EvaluateRequest, *, quiet: bool) -> int:
    """Score a run on videos with boxes; returns the number of videos that failed."""
    console.quiet = quiet
    _claim_results(request)
    run = load_run(open_run(request.run), device=request.device)
    plain = load_localizers(run)
    ddt = plain[run.config.cam.method] if request.ddt else None
    stored = run.folder / "evaluation" / "thresholds.json"
    refined = refined_localizers(plain, read_thresholds(stored)[0]) if request.refine else {}
    localizers = {**plain, **refined}
    components: Components = "largest contour" if request.benchmark else "largest"
    if request.benchmark:  # a rule of boxes has thresholds of its own, and so have refined maps
        thresholds, chosen_on = choose_thresholds(run, localizers, components=components, placement=request.placement)
    else:
        thresholds, chosen_on = read_thresholds(stored)
        if refined:
            thresholds |= choose_thresholds(run, refined, placement=request.placement)[0]
            if request.output is None:
                chosen = {name: thresholds[name] for name in refined}
                save_thresholds(run.folder / REFINED, chosen, chosen_on=chosen_on, presence={})
    output = request.output or _own_results(request, run.folder)
    failures = 0
    if request.videos is not None:
        videos = resolve_videos(request.videos)
        config = load_config(run.folder / "config.yaml", request.overrides)
        prepared = prepare_data(
            videos, config, output, cache_dir=None, for_training=False, placement=request.placement.for_probing()
        )
        index, truth = _with_classes_of(run, prepared.index, prepared.truth)
        run, failures = replace(run, index=index, truth=truth), len(prepared.failures)
    scored = score_split(
        run,
        localizers,
        request.split,
        chosen=thresholds,
        components=components,
        placement=request.placement,
        ddt=ddt,
    )
    rows = results_table(scored, thresholds, chosen_on)
    print_table(rows, f"{request.split} split of {request.videos or 'the videos of the run'}")
    print_metrics(list_metrics(scored.methods, chosen_on))
    results = output / "evaluation" if output == run.folder else output
    save_results(results, rows, scored.methods, thresholds, split=request.split, chosen_on=chosen_on)
    overlay = output / "report" / "overlay.mp4"
    page = write_run_report(
        run.folder,
        read_evaluation(results),
        picture_source(run, localizers),
        output=output / "report",
        thresholds=thresholds,
        video=overlay if overlay.is_file() else None,
    )
    console.print(f"report: {page}")
    if request.as_json:
        table = [{"method": name, **result.as_dict()} for name, result in rows]
        sys.stdout.write(json.dumps(table) + "\n")
    return failures + _scoring_failures(scored)


def _own_results(request: EvaluateRequest, run: Path) -> Path:
    """Choose the folder of an evaluation in its run; the run itself for its own test videos and usual settings."""
    special = request.benchmark or request.refine or request.ddt
    if request.videos is None and request.split == "test" and not special:
        return run
    name = f"evaluation-{request.split}" + ("-benchmark" if request.benchmark else "")
    return run / (name + ("-crf" if request.refine else "") + ("-ddt" if request.ddt else ""))


def _claim_results(request: EvaluateRequest) -> None:
    """Mark the folder of an evaluation as tcam's; refuses one that holds somebody's files or lies among the videos."""
    if request.overrides and request.videos is None:
        raise ConfigError("--set is for the videos of --videos FOLDER: name them, or leave it out")
    run, folder = open_run(request.run), request.output
    if folder is None or folder.resolve() == run.resolve():
        return
    inputs = [resolve_videos(request.videos)] if request.videos is not None else []
    with suppress(DataError):  # a run that does not say where its videos lie
        inputs.append(videos_of_run(run))
    check_output_folder(folder, EVALUATION_FILES, inputs, flag="-o")
    mark_output_folder(folder)


def _with_classes_of(
    run: Run, index: VideoIndex, truth: tuple[FrameTruth, ...]
) -> tuple[VideoIndex, tuple[FrameTruth, ...]]:
    """Renumber the labels of other data by the run's classes."""
    unknown = [name for name in index.class_names if name not in run.index.class_names]
    if unknown:
        raise DataError(f"the videos hold class '{unknown[0]}'; the run knows {', '.join(run.index.class_names)}")
    labels = [run.index.class_names.index(name) for name in index.class_names]
    records = tuple(replace(record, label=labels[record.label]) for record in index.records)
    return (
        replace(index, class_names=run.index.class_names, records=records),
        tuple(replace(item, label=labels[item.label]) for item in truth),
    )


def _scoring_failures(scored: ScoredSet) -> int:
    for video_id, reason in scored.failures:
        console.print(f"failed {video_id}: {reason}", markup=False)
    return len(scored.failures)
