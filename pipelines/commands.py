"""What the commands do, once their flags are read: the only place that ties runs, data and outputs together."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from pipelines.compare import compare_runs
from pipelines.compare_page import (
    COMPARISON_FILES,
    NUM_SUMMARY_COLUMNS,
    as_values,
    difference_rows,
    score_rows,
    write_comparison_page,
)
from pipelines.config import RunConfig, load_config, save_config
from pipelines.evaluate import (
    ScoredSet,
    print_metrics,
    print_table,
    read_thresholds,
    results_table,
    save_thresholds,
)
from pipelines.files import write_json
from pipelines.localizer import refined_localizers
from pipelines.lock import locked
from pipelines.metrics import list_metrics
from pipelines.negatives import check_negatives
from pipelines.outputs import check_output_folder, mark_output_folder
from pipelines.prepare_run import prepare_data
from pipelines.report_results import read_evaluation
from pipelines.report_run import write_run_report
from pipelines.results import PER_FRAME, RESULTS, save_results
from pipelines.runlog import (
    check_run_name,
    console,
    create_run,
    describe_environment,
    open_run,
    print_text_table,
    run_stage,
)
from pipelines.sources import check_folder, resolve_videos
from pipelines.spread import AS_FITS, Spread
from pipelines.stages import (
    REFINED,
    Run,
    check_settings,
    choose_thresholds,
    load_localizers,
    load_run,
    make_cams,
    picture_source,
    score_split,
    train_run,
)
from pipelines.team import Team, joined_team
from pipelines.train_team import choose_training, help_leader, release_others
from tcam.errors import ConfigError, DataError, WeightsError
from tcam.files import sweep_leftovers
from tcam.types import SPLITS, Components, FrameTruth, VideoIndex

_LONGEST_NAME = 60
"""Characters of a run's name that come from its videos: a folder's name has an end, in bytes."""
PREPARED_FILES = ("index.json", "truth.csv", "errors.csv", "background.json")
EVALUATION_FILES = (*PREPARED_FILES, RESULTS, PER_FRAME, "report")


def cache_folder() -> Path:
    """Where frame caches live: ``$TCAM_HOME/cache``, or the system's cache folder for tcam."""
    home = os.environ.get("TCAM_HOME")
    return Path(home) / "cache" if home else Path(platformdirs.user_cache_dir("tcam"))


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """Flags of ``tcam train``."""

    videos: Path | None
    config: Path | None
    overrides: tuple[str, ...]
    name: str | None
    resume: Path | None
    runs: Path
    num_workers: int = 1


def start_or_resume(request: TrainRequest, *, quiet: bool) -> int:
    """Train a new run or go on with one; gives the number of videos left out.

    Where torchrun started several processes, one of them does all this and the others help it to train.
    """
    console.quiet = quiet
    with joined_team() as team:
        if not team.leads:
            help_leader(team)
            return 0
        failures = _lead_run(request, team)
        release_others(team)
        return failures


def _lead_run(request: TrainRequest, team: Team) -> int:
    if request.resume is not None:
        folder = open_run(request.resume)
        if request.config or request.overrides or request.name:
            raise ConfigError("--resume goes on with the run's own settings: leave out --config, --set and other flags")
        videos = resolve_videos(request.videos or _videos_of(folder))
        train_stage = choose_training(load_config(folder / "config.yaml"), request.num_workers, team)
    else:
        if request.videos is None:
            raise ConfigError("expected --videos FOLDER (one subfolder per tag) or --resume RUN, found neither")
        videos = resolve_videos(request.videos)
        config = _with_absolute_paths(load_config(request.config, request.overrides))
        own_name = re.sub(r"[^\w.+]+", "-", videos.resolve().name).strip("-.+")[:_LONGEST_NAME] or "videos"
        name = check_run_name(request.name or f"{own_name}-{config.method}")
        check_folder(videos, config)
        check_negatives(videos, config)
        check_settings(config)
        train_stage = choose_training(config, request.num_workers, team)
        folder = create_run(request.runs, name)
        save_config(config, folder / "config.yaml")
        write_json(folder / "env.json", {**describe_environment(), "videos": str(videos.resolve())})
    console.print(f"run folder: {folder}")
    try:
        config = load_config(folder / "config.yaml")
        result = train_run(videos, config, folder, cache_dir=cache_folder(), train_stage=train_stage)
    except DataError:
        if request.resume is None and not (folder / "index").exists():
            shutil.rmtree(folder)  # the videos are unusable: nothing was begun
        raise
    if result.rows:
        print_table(result.rows, f"test split of {videos}")
    else:
        console.print("no boxes of test videos: nothing to evaluate")
    console.print(
        f"report: {folder / 'report' / 'report.html'}\nnext: tcam predict {folder} --source VIDEO -o boxes.csv"
    )
    return result.failures


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """Let a run find its weight file and its background from any working directory later."""
    model, data = config.model, config.data
    if Path(model.weights).is_file():
        model = model.model_copy(update={"weights": str(Path(model.weights).resolve())})
    if data.background is not None:
        data = data.model_copy(update={"background": str(Path(data.background).resolve())})
    return config.model_copy(update={"model": model, "data": data})


def _videos_of(run: Path) -> Path:
    try:
        return Path(json.loads((run / "env.json").read_text(encoding="utf-8"))["videos"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{run / 'env.json'} does not say which videos the run is of: pass --videos FOLDER") from None


def prepare_videos(
    source: Path, config: Path | None, overrides: Sequence[str], *, output: Path, spread: Spread, quiet: bool
) -> int:
    """Probe and cache videos, leave their index in ``output`` and show the splits; gives the number of broken ones."""
    console.quiet = quiet
    settings = load_config(config, list(overrides))
    videos = resolve_videos(source)
    check_output_folder(output, PREPARED_FILES, [videos], flag="-o")
    mark_output_folder(output)
    prepared = prepare_data(videos, settings, output, cache_dir=cache_folder(), spread=spread.for_probing())
    counts = Counter((record.label, record.split) for record in prepared.index.records)
    rows = [
        [name, *(str(counts[label, split]) for split in SPLITS)]
        for label, name in enumerate(prepared.index.class_names)
    ]
    print_text_table(f"videos of {source}", ["class", *SPLITS], rows)
    console.print(f"index: {output / 'index.json'}; clean copies: {cache_folder()}")
    return len(prepared.failures)


def cache_cams(folder: Path, *, device: str, spread: Spread, quiet: bool) -> None:
    """Make the CAM cache of a run, unless it is there.

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
        run_stage(run.cams_stage(), lambda: make_cams(run, spread))
    console.print(f"CAM cache: {run.cams_stage().folder}; next: tcam train --resume {folder}")


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
    spread: Spread = AS_FITS


def evaluate_run(request: EvaluateRequest, *, quiet: bool) -> int:
    """Score a run on videos with boxes; gives the number of videos that failed."""
    console.quiet = quiet
    _claim_results(request)
    run = load_run(open_run(request.run), device=request.device)
    plain = load_localizers(run)
    saliency = plain[run.config.cam.method] if request.ddt else None
    stored = run.folder / "evaluation" / "thresholds.json"
    refined = refined_localizers(plain, read_thresholds(stored)[0]) if request.refine else {}
    localizers = {**plain, **refined}
    components: Components = "largest contour" if request.benchmark else "largest"
    if request.benchmark:  # a rule of boxes has thresholds of its own, and so have refined maps
        thresholds, chosen_on = choose_thresholds(run, localizers, components=components, spread=request.spread)
    else:
        thresholds, chosen_on = read_thresholds(stored)
        if refined:
            thresholds |= choose_thresholds(run, refined, spread=request.spread)[0]
            if request.output is None:
                chosen = {name: thresholds[name] for name in refined}
                save_thresholds(run.folder / REFINED, chosen, chosen_on=chosen_on, presence={})
    output = request.output or _own_results(request, run.folder)
    failures = 0
    if request.videos is not None:
        videos = resolve_videos(request.videos)
        config = load_config(run.folder / "config.yaml", request.overrides)
        prepared = prepare_data(
            videos, config, output, cache_dir=None, for_training=False, spread=request.spread.for_probing()
        )
        index, truth = _with_classes_of(run, prepared.index, prepared.truth)
        run, failures = replace(run, index=index, truth=truth), len(prepared.failures)
    scored = score_split(
        run,
        localizers,
        request.split,
        chosen=thresholds,
        components=components,
        spread=request.spread,
        saliency=saliency,
    )
    rows = results_table(scored, thresholds, chosen_on)
    print_table(rows, f"{request.split} split of {request.videos or 'the videos of the run'}")
    print_metrics(list_metrics(scored.judges, chosen_on))
    results = output / "evaluation" if output == run.folder else output
    save_results(results, rows, scored.judges, thresholds, split=request.split, chosen_on=chosen_on)
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
        inputs.append(_videos_of(run))
    check_output_folder(folder, EVALUATION_FILES, inputs, flag="-o")
    mark_output_folder(folder)


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """Flags of ``tcam compare``."""

    runs: tuple[Path, ...]
    output: Path
    as_json: bool


def compare_finished(request: CompareRequest, *, quiet: bool) -> None:
    """Compare runs, show the tables and write the pages."""
    console.quiet = quiet
    comparison = compare_runs(request.runs)
    check_output_folder(request.output, COMPARISON_FILES, request.runs, flag="-o")
    mark_output_folder(request.output)
    head, rows = score_rows(comparison)
    print_text_table(
        "CorLoc, mean ± standard deviation over seeds (by class: the page)",
        head[:NUM_SUMMARY_COLUMNS],
        [row[:NUM_SUMMARY_COLUMNS] for row in rows],
    )
    print_text_table("paired differences, points", *difference_rows(comparison))
    page = write_comparison_page(request.output, comparison)
    console.print(f"comparison: {page}")
    if request.as_json:
        sys.stdout.write(json.dumps(as_values(comparison)) + "\n")


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
