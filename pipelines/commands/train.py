"""What ``tcam train`` and ``tcam.train`` do."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipelines.commands.recipe import choose_recipe
from pipelines.config.schema import RunConfig, load_config, save_config
from pipelines.data.sources import check_videos, resolve_videos
from pipelines.evaluation.printing import print_table
from pipelines.models.run import videos_of_run
from pipelines.pipeline import RunResult, check_settings, train_run
from pipelines.run.console import console
from pipelines.run.environment import describe_environment
from pipelines.run.files import write_json
from pipelines.run.folder import check_run_name, create_run, open_run
from pipelines.run.places import cache_folder
from pipelines.training.distributed.launch import choose_training, release_others, train_with_main
from pipelines.training.distributed.process_group import joined_process_group
from pipelines.training.run_stage import TrainStage
from tcam.errors import ConfigError, DataError

_LONGEST_NAME = 60
"""Characters of a run's name taken from its videos: folder names have a limit, in bytes."""


def start_or_resume(
    videos: Path | None,
    *,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    name: str | None = None,
    resume: Path | None = None,
    runs: Path = Path("runs"),
    num_workers: int = 1,
    quiet: bool = False,
) -> RunResult:
    """Train a new run, or continue ``resume``; the arguments are the flags of ``tcam train``.

    If torchrun started several processes, one of them does all this and the others only help to train.

    Raises:
        TcamError: data, weights or settings do not allow it, or another process works in the run.
    """
    console.quiet = quiet
    with joined_process_group() as group:
        if not group.is_main:
            return RunResult(train_with_main(group), rows=[], failures=0)
        if resume is not None:
            folder = open_run(resume)
            if config or overrides or name:
                raise ConfigError(
                    "--resume goes on with the run's own settings: leave out --config, --set and other flags"
                )
            found = resolve_videos(videos or videos_of_run(folder))
            train_stage = choose_training(load_config(folder / "config.yaml"), num_workers, group)
        else:
            if videos is None:
                raise ConfigError("expected --videos FOLDER (one subfolder per tag) or --resume RUN, found neither")
            settings = _settings(found := resolve_videos(videos), config, overrides)
            run_name = _check_all(found, settings, name)
            train_stage = choose_training(settings, num_workers, group)
            folder = _create_run(found, settings, runs, run_name)
        result = _train(found, folder, train_stage, is_new=resume is None)
        release_others(group, folder)
        return result


def _check_all(videos: Path, config: RunConfig, name: str | None) -> str:
    """Check before anything is written that a run is possible; return its name without the number."""
    own_name = re.sub(r"[^\w.+]+", "-", videos.resolve().name).strip("-.+")[:_LONGEST_NAME] or "videos"
    run_name = check_run_name(name or f"{own_name}-{config.method}")
    check_videos(videos, config)
    check_settings(config)
    return run_name


def _create_run(videos: Path, config: RunConfig, runs: Path, name: str) -> Path:
    folder = create_run(runs, name)
    save_config(config, folder / "config.yaml")
    write_json(folder / "env.json", {**describe_environment(), "videos": str(videos.resolve())})
    return folder


def _train(videos: Path, folder: Path, train_stage: TrainStage, *, is_new: bool) -> RunResult:
    console.print(f"run folder: {folder}")
    try:
        config = load_config(folder / "config.yaml")
        result = train_run(videos, config, folder, cache_dir=cache_folder(), train_stage=train_stage)
    except DataError:
        if is_new and not (folder / "index").exists():
            shutil.rmtree(folder)  # the videos are unusable: nothing was started
        raise
    if result.rows:
        print_table(result.rows, f"test split of {videos}")
    else:
        console.print("no boxes of test videos: nothing to evaluate")
    console.print(
        f"report: {folder / 'report' / 'report.html'}\nnext: tcam predict {folder} --source VIDEO -o boxes.csv"
    )
    return result


def _settings(videos: Path, config: Path | None, overrides: Sequence[str]) -> RunConfig:
    """Return the settings of a new run; ``choose_recipe`` chooses where the user leaves them open."""
    return _with_absolute_paths(load_config(config or choose_recipe(videos, overrides), overrides))


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """Return the settings with absolute paths of weight file and background, so that the run works from anywhere."""
    model, data = config.model, config.data
    if Path(model.weights).is_file():
        model = model.model_copy(update={"weights": str(Path(model.weights).resolve())})
    if data.background is not None:
        data = data.model_copy(update={"background": str(Path(data.background).resolve())})
    return config.model_copy(update={"model": model, "data": data})
