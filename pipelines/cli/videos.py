"""The commands that work through many videos (prepare, cams, predict, evaluate), and the options that say where.

As in ``pipelines/cli/app.py``, heavy imports happen inside the commands.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.data import SOME_FAILED
from pipelines.parallel.placement import Placement
from tcam.errors import ConfigError


class EvaluatedSplit(StrEnum):
    """Which videos ``tcam evaluate`` looks at."""

    train = "train"
    val = "val"
    test = "test"
    all = "all"


class Protocol(StrEnum):
    """By which rule ``tcam evaluate`` makes boxes and counts overlap."""

    ours = "ours"
    benchmark = "benchmark"


class Refinement(StrEnum):
    """What goes over the maps at the end."""

    none = "none"
    crf = "crf"
    joint = "joint"


class Baseline(StrEnum):
    """Baselines that ``tcam evaluate`` adds on request."""

    ddt = "ddt"


RunFolder = Annotated[Path, typer.Argument(help="Run folder, e.g. runs/pets-001.")]
RunOrFile = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, or a file of tcam export.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda:0 or mps.")]
Half = Annotated[
    bool, typer.Option("--half", help="Compute in 16 bits (bfloat16 or fp16), whatever the run's precision is.")
]
Threshold = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Map threshold, relative to the maximum. Default: the run's own."),
]
ClassName = Annotated[
    str | None, typer.Option("--class", help="Box this tag. Default: the most probable of each frame.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. classifier.epochs=10.")
]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Child processes; 0: only this one. Default: one per processor if that is faster."),
]
Ray = Annotated[bool, typer.Option("--ray", help="Use a Ray cluster; without --ray-address, one on this machine.")]
RayAddress = Annotated[
    str | None, typer.Option(metavar="ADDR", help="A running cluster: HOST:PORT, or auto. Means --ray.")
]
Actors = Annotated[int | None, typer.Option(min=1, help="Ray workers that hold a model. Default: one per CPU or GPU.")]
GpusPerActor = Annotated[float, typer.Option(min=0.0, help="Share of a GPU for each actor, e.g. 0.25.")]


Refine = Annotated[
    Refinement,
    typer.Option(
        help="crf: fit maps to the edges of their frame (needs tcam[crf]); joint: make the maps of a video agree."
    ),
]


def choose_placement(
    workers: int | None, ray: bool, ray_address: str | None, actors: int | None, gpus_per_actor: float
) -> Placement:
    """Turn the flags into the place of work.

    Raises:
        ConfigError: flags of Ray without Ray.
    """
    ray = ray or ray_address is not None
    if not ray and (actors is not None or gpus_per_actor):
        raise ConfigError("--actors and --gpus-per-actor are for Ray: add --ray, or use --workers N on this machine")
    return Placement(workers, ray, ray_address, actors, gpus_per_actor)


def prepare(
    source: Annotated[Path, typer.Argument(help="Folder of videos, one subfolder per tag; or yto_v1, yto_v2.2.")],
    config: Annotated[Path | None, typer.Option(help="YAML file of settings; its data.* and seed matter here.")] = None,
    set_: Sets = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for index.json, truth.csv and errors.csv.")
    ] = Path("prepared"),
    workers: Workers = None,
    ray: Ray = False,
    ray_address: RayAddress = None,
    quiet: Quiet = False,
) -> None:
    """Check videos and write their clean copies into the cache; a rerun, or tcam train, does only what is missing.

    A video is one work item here: the encoder of its copy needs the frames in order.
    """
    from pipelines.commands.prepare import prepare_videos

    placement = choose_placement(workers, ray, ray_address, None, 0.0)
    leave(prepare_videos(source, config, tuple(set_ or ()), output=output, placement=placement, quiet=quiet))


def cams(
    run: RunFolder,
    device: Device = "auto",
    workers: Workers = None,
    ray: Ray = False,
    ray_address: RayAddress = None,
    actors: Actors = None,
    gpus_per_actor: GpusPerActor = 0.0,
    quiet: Quiet = False,
) -> None:
    """Make the CAM cache of a run whose classifier is trained; tcam train --resume then finds it ready."""
    from pipelines.commands.prepare import cache_cams

    placement = choose_placement(workers, ray, ray_address, actors, gpus_per_actor)
    cache_cams(run, device=device, placement=placement, quiet=quiet)


def predict(
    run: RunOrFile,
    source: Annotated[
        str,
        typer.Option(help="Video file, picture, folder of videos or frames, glob, address, or .txt of those."),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="boxes.csv, .jsonl or .parquet; FOLDER/: one CSV per video; -: JSON Lines."
        ),
    ] = "-",
    save_video: Annotated[Path | None, typer.Option(help="Folder for videos with box and map drawn.")] = None,
    track: Annotated[bool, typer.Option("--track", help="Number objects over time, in the column track_id.")] = False,
    threshold: Threshold = None,
    class_name: ClassName = None,
    refine: Refine = Refinement.none,
    batch: Annotated[int, typer.Option(min=1, help="Frames per forward pass; on a CPU 8 at most.")] = 8,
    device: Device = "auto",
    half: Half = False,
    workers: Workers = None,
    ray: Ray = False,
    ray_address: RayAddress = None,
    actors: Actors = None,
    gpus_per_actor: GpusPerActor = 0.0,
    quiet: Quiet = False,
) -> None:
    """Write one row per frame: class, box, scores."""
    from pipelines.commands.predict import predict_sources

    failures = predict_sources(
        run,
        source,
        output=output,
        save_video=save_video,
        track=track,
        threshold=threshold,
        class_name=class_name,
        refine=refine.value,
        batch=batch,
        device=device,
        half=half,
        placement=choose_placement(workers, ray, ray_address, actors, gpus_per_actor),
        quiet=quiet,
    )
    leave(failures)


def evaluate(
    run: RunFolder,
    videos: Annotated[
        Path | None, typer.Option(help="Folder of videos with boxes.csv, or yto_v1; the run's own if left out.")
    ] = None,
    split: Annotated[EvaluatedSplit, typer.Option(help="Which videos.")] = EvaluatedSplit.test,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the --videos, e.g. data.units=relative."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for results and report; the run itself for its own test videos."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the table as JSON on stdout.")] = False,
    protocol: Annotated[
        Protocol,
        typer.Option(help="ours: largest component, plain IoU; benchmark: the WSOL benchmark's contours and IoU."),
    ] = Protocol.ours,
    refine: Refine = Refinement.none,
    baseline: Annotated[
        Baseline | None, typer.Option(help="ddt: also score deep descriptor transformation, which is not trained.")
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    ray: Ray = False,
    ray_address: RayAddress = None,
    actors: Actors = None,
    gpus_per_actor: GpusPerActor = 0.0,
    quiet: Quiet = False,
) -> None:
    """Compare a run's boxes with ground truth: CorLoc per class and mean, beside centre-box and full-frame boxes."""
    from pipelines.commands.evaluate import evaluate_run

    evaluated = evaluate_run(
        run,
        videos=videos,
        split=split.value,
        overrides=set_ or (),
        output=output,
        device=device,
        placement=choose_placement(workers, ray, ray_address, actors, gpus_per_actor),
        benchmark=protocol is Protocol.benchmark,
        refine=refine.value,
        ddt=baseline is not None,
        quiet=quiet,
    )
    if json_:
        typer.echo(json.dumps(evaluated.as_values()))
    leave(len(evaluated.failures))


def leave(failures: int) -> None:
    """End with the exit code that says whether some videos failed."""
    if failures:
        raise typer.Exit(SOME_FAILED)
