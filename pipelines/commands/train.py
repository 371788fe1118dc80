"""What the commands do, once their flags are read: the only place that ties runs, data and outputs together."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipelines.config.schema import RunConfig, load_config, save_config
from pipelines.data.sources import check_videos, resolve_videos
from pipelines.evaluation.score import print_table
from pipelines.models.run import videos_of_run
from pipelines.pipeline import check_settings, train_run
from pipelines.run.console import console
from pipelines.run.environment import describe_environment
from pipelines.run.files import write_json
from pipelines.run.folder import check_run_name, create_run, open_run
from pipelines.run.places import cache_folder
from pipelines.training.distributed.launch import choose_training, release_others, train_with_main
from pipelines.training.distributed.process_group import ProcessGroup, joined_process_group
from tcam.errors import ConfigError, DataError

_LONGEST_NAME = 60
"""Characters of a run's name that come from its videos: a folder's name has an end, in bytes."""


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
    """Train a new run or go on with one; returns the number of videos left out.

    Where torchrun started several processes, one of them does all this and the others help it to train.
    """
    console.quiet = quiet
    with joined_process_group() as group:
        if not group.is_main:
            train_with_main(group)
            return 0
        failures = _lead_run(request, group)
        release_others(group)
        return failures


def _lead_run(request: TrainRequest, group: ProcessGroup) -> int:
    if request.resume is not None:
        folder = open_run(request.resume)
        if request.config or request.overrides or request.name:
            raise ConfigError("--resume goes on with the run's own settings: leave out --config, --set and other flags")
        videos = resolve_videos(request.videos or videos_of_run(folder))
        train_stage = choose_training(load_config(folder / "config.yaml"), request.num_workers, group)
    else:
        if request.videos is None:
            raise ConfigError("expected --videos FOLDER (one subfolder per tag) or --resume RUN, found neither")
        videos = resolve_videos(request.videos)
        config = _with_absolute_paths(load_config(request.config, request.overrides))
        own_name = re.sub(r"[^\w.+]+", "-", videos.resolve().name).strip("-.+")[:_LONGEST_NAME] or "videos"
        name = check_run_name(request.name or f"{own_name}-{config.method}")
        check_videos(videos, config)
        check_settings(config)
        train_stage = choose_training(config, request.num_workers, group)
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
