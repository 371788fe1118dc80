"""What the commands do, once their flags are read: the only place that ties runs, data and outputs together."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from pipelines.compare import compare_runs
from pipelines.compare_page import NUM_SUMMARY_COLUMNS, as_values, difference_rows, score_rows, write_comparison_page
from pipelines.config import RunConfig, load_config, save_config
from pipelines.evaluate import ScoredSet, print_metrics, print_table, read_thresholds, results_table
from pipelines.files import hash_file, write_json
from pipelines.metrics import list_metrics
from pipelines.overlay_video import save_overlay
from pipelines.predict import FramePrediction, find_sources, predict_video
from pipelines.prepare import VideoFailure, write_failures
from pipelines.report_results import read_evaluation
from pipelines.report_run import write_run_report
from pipelines.results import save_results
from pipelines.runlog import (
    check_run_name,
    console,
    create_run,
    describe_environment,
    open_run,
    print_text_table,
    progress_bar,
)
from pipelines.sinks import BoxSink, open_box_sink
from pipelines.sources import check_folder, resolve_videos
from pipelines.stages import (
    Run,
    check_settings,
    load_localizers,
    load_run,
    main_localizer,
    picture_source,
    prepare_data,
    score_split,
    train_run,
)
from pipelines.team import Team, joined_team
from pipelines.train_team import choose_training, help_leader, release_others
from tcam.errors import ConfigError, DataError, VideoError
from tcam.types import Components, FrameTruth, VideoIndex
from tcam.video.reader import stream_frames


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
        config = _with_absolute_weights(load_config(request.config, request.overrides))
        own_name = re.sub(r"[^\w.+]+", "-", videos.resolve().name).strip("-.+") or "videos"
        name = check_run_name(request.name or f"{own_name}-{config.method}")
        check_folder(videos)
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


def _with_absolute_weights(config: RunConfig) -> RunConfig:
    """Let a run find its weight file from any working directory later."""
    file = Path(config.model.weights)
    if not file.is_file():
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"weights": str(file.resolve())})})


def _videos_of(run: Path) -> Path:
    try:
        return Path(json.loads((run / "env.json").read_text(encoding="utf-8"))["videos"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{run / 'env.json'} does not say which videos the run is of: pass --videos FOLDER") from None


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """Flags of ``tcam predict``."""

    run: Path
    source: str
    output: str
    save_video: Path | None
    threshold: float | None
    class_name: str | None
    batch: int
    device: str


def predict_sources(request: PredictRequest, *, quiet: bool) -> int:
    """Localize in every source and write the box table; gives the number of videos that failed."""
    console.quiet = quiet
    run = load_run(open_run(request.run), device=request.device)
    sources = find_sources(request.source)
    name = main_localizer(run)
    threshold = request.threshold
    if threshold is None:
        threshold = read_thresholds(run.folder / "evaluation" / "thresholds.json")[0][name]
    label = _label(run, request.class_name)
    localizer = load_localizers(run)[name]
    failures: list[VideoFailure] = []
    with open_box_sink(request.output, metadata=_metadata(run, name, threshold)) as sink, progress_bar() as bar:
        task = bar.add_task("predict", total=len(sources))
        for video_id, path in sources:
            frames = predict_video(
                localizer,
                video_id,
                stream_frames(path, size=run.input_size, keep_original=request.save_video is not None),
                threshold=threshold,
                batch=request.batch,
                label=label,
            )
            if request.save_video is not None:
                target = request.save_video / (video_id if video_id.endswith(".mp4") else f"{video_id}.mp4")
                frames = save_overlay(frames, target, run.index.class_names)
            try:
                _write_rows(frames, sink, run, threshold)
            except VideoError as error:
                failures.append(VideoFailure(video_id, str(error)))
                console.print(f"failed {video_id}: {error}", markup=False)
            bar.advance(task)
    _report_failures(failures, request.output, len(sources))
    return len(failures)


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


def evaluate_run(request: EvaluateRequest, *, quiet: bool) -> int:
    """Score a run on videos with boxes; gives the number of videos that failed."""
    console.quiet = quiet
    run = load_run(open_run(request.run), device=request.device)
    thresholds, chosen_on = read_thresholds(run.folder / "evaluation" / "thresholds.json")
    own = request.videos is None and request.split == "test" and not request.benchmark
    name = f"evaluation-{request.split}" + ("-benchmark" if request.benchmark else "")
    output = request.output or (run.folder if own else run.folder / name)
    failures = 0
    if request.videos is not None:
        videos = resolve_videos(request.videos)
        prepared = prepare_data(videos, run.config, output, cache_dir=None, for_training=False)
        index, truth = _with_classes_of(run, prepared.index, prepared.truth)
        run, failures = replace(run, index=index, truth=truth), len(prepared.failures)
    localizers = load_localizers(run)
    components: Components = "largest contour" if request.benchmark else "largest"
    scored = score_split(run, localizers, request.split, chosen=thresholds, components=components)
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


def _write_rows(frames: Iterator[FramePrediction], sink: BoxSink, run: Run, threshold: float) -> None:
    for frame in frames:
        sink.write(frame.box, size=frame.size, class_name=run.index.class_names[frame.box.label], threshold=threshold)


def _label(run: Run, class_name: str | None) -> int | None:
    if class_name is None:
        return None
    if class_name not in run.index.class_names:
        raise ConfigError(f"--class {class_name}: the run knows {', '.join(run.index.class_names)}")
    return run.index.class_names.index(class_name)


def _metadata(run: Run, name: str, threshold: float) -> dict[str, object]:
    stage = "classifier" if run.config.method == "cam" else "localizer"
    checkpoint = run.folder / stage / "best_localization.safetensors"
    return {
        "run": run.folder.name,
        "method": name,
        "threshold": threshold,
        "classes": list(run.index.class_names),
        "weights_hash": hash_file(checkpoint) if checkpoint.is_file() else None,
        "config": run.config.model_dump(mode="json"),
        "versions": describe_environment()["versions"],
    }


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


def _report_failures(failures: list[VideoFailure], output: str, total: int) -> None:
    if not failures:
        return
    folder = Path(output).parent if output != "-" else Path()
    write_failures(tuple(failures), folder / "errors.csv")
    console.print(f"{len(failures)} of {total} videos failed, listed in {folder / 'errors.csv'}")
