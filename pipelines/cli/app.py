"""The ``tcam`` command. Heavy imports happen inside the commands: ``tcam --help`` loads no torch.

Data goes to stdout, everything people read to stderr. Exit codes: 0 ok, 1 unexpected, 2 usage, 3 data missing or
invalid, 4 finished but some videos failed, 5 optional part or weights missing, 6 no network, no Ray
cluster or a live source lost, 130 and 143 interrupted by SIGINT and SIGTERM.
"""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.data import backbones, data
from pipelines.cli.data import configs as show_configs
from pipelines.cli.doctor import doctor
from pipelines.cli.export import bench, export
from pipelines.cli.stream import stream
from pipelines.cli.videos import Device, Quiet, Sets, cams, evaluate, leave, predict, prepare
from pipelines.config.methods import METHODS
from pipelines.run.signals import Interrupted, end_as_it_is, end_children, raising_signals
from tcam.errors import TcamError
from tcam.files import cannot_write

app = typer.Typer(
    name="tcam",
    help="Learn to box the tagged object in every frame of a video, from tags only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def _known_method(name: str) -> str:
    if name not in METHODS:
        raise typer.BadParameter(f"expected one of {', '.join(METHODS)}, found '{name}'")
    return name


Runs = Annotated[Path, typer.Option(help="Folder that holds the runs.")]


@app.command(short_help="Tagged videos in, trained run and CorLoc table out.")
def train(
    videos: Annotated[
        Path | None,
        typer.Option(help="Folder of videos, one subfolder per tag: <tag>/<clip>.mp4; or yto_v1."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            parser=_known_method,
            metavar="NAME",
            help="; ".join(f"{name}: {method.summary}" for name, method in METHODS.items()) + ".",
        ),
    ] = None,
    background: Annotated[Path | None, typer.Option(help="Videos without any object, for --method negev.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings, such as configs/real/tcam.yaml.")] = None,
    set_: Sets = None,
    backbone: Annotated[str | None, typer.Option(help="A timm model; see tcam backbones.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Pretrained weights: a FILE, imagenet (downloads) or random.")
    ] = None,
    selection: Annotated[str | None, typer.Option(help="What chooses the map threshold: auto, tags, default.")] = None,
    name: Annotated[str | None, typer.Option(help="The run becomes RUNS/NAME-001, -002, ...")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda:0 or mps.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that probe and cache videos.")] = None,
    num_workers: Annotated[
        int, typer.Option(help="Processes that train together (Ray Train); each batch is split among them.")
    ] = 1,
    resume: Annotated[
        Path | None, typer.Option(help="Continue this run from its last saved step, with its own settings.")
    ] = None,
    runs: Runs = Path("runs"),
    quiet: Quiet = False,
) -> None:
    """Train from tagged videos: prepare, classifier, CAM cache, localizer, evaluation."""
    from pipelines.commands.train import start_or_resume

    overrides = list(set_ or [])
    flags = {
        "method": method,
        "seed": seed,
        "device": device,
        "model.backbone": backbone,
        "model.weights": weights,
        "data.workers": workers,
        "evaluation.selection": selection,
        "data.background": None if background is None else str(background),
    }
    overrides += [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None]
    result = start_or_resume(
        videos,
        config=config,
        overrides=overrides,
        name=name,
        resume=resume,
        runs=runs,
        num_workers=num_workers,
        quiet=quiet,
    )
    leave(result.failures)


@app.command(short_help="Compare finished runs: scores over seeds, paired differences, settings.")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two run folders or more; the first one is the baseline.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for page, Markdown and JSON.")] = Path(
        "runs/compare"
    ),
    json_: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON on stdout.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare runs on the same test frames; runs called NAME-seedN, or that differ only in seed, are one method."""
    from pipelines.commands.compare import compare_finished

    compare_finished(runs, output, as_json=json_, quiet=quiet)


@app.command(short_help="Try everything on synthetic videos, in three minutes.")
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for videos, runs and report.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Try everything in three minutes: synthetic tagged videos, CAM, TCAM, CoLo-CAM, table, report, overlay video."""
    from pipelines.commands.demo import run_demo

    run_demo(output, seed=seed, device=device, quiet=quiet)


app.command(short_help="Check this machine, and say how to fix what is missing.")(doctor)
app.command(short_help="Check videos and write their clean copies ahead of tcam train.")(prepare)
app.command(short_help="Make the CAM cache of a run whose classifier is trained.")(cams)
app.command(short_help="Videos in, one box per frame out.")(predict)
app.command(short_help="Camera, network stream, pipe or file in, one line of JSON per frame out.")(stream)
app.command(short_help="Compare a run with ground-truth boxes: CorLoc.")(evaluate)
app.command(short_help="A run as one file for ONNX Runtime, OpenVINO or torch.export.")(export)
app.command(short_help="Measure the speed of each stage, with each installed engine.")(bench)
app.add_typer(data, name="data")
app.command("configs", short_help="The configs that come with tcam.")(show_configs)
app.command(short_help="The networks that --backbone takes.")(backbones)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("tcam"))
        raise typer.Exit


def main() -> None:
    """Be the process ``tcam``."""
    try:
        run()
    except SystemExit as leaving:
        if "ray" in sys.modules:  # its threads may crash a process that is being taken down, when all is done
            end_as_it_is(leaving.code)
        raise


def run() -> None:
    """Run the command line; every expected error is one line and its exit code."""
    with raising_signals():
        try:
            app(prog_name="tcam")
        except Interrupted as interrupt:
            end_children()
            _say(str(interrupt))
            sys.exit(interrupt.exit_code)
        except TcamError as error:
            _say(f"tcam: error: {' '.join(str(error).split())}")
            sys.exit(error.exit_code)
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            failed = cannot_write(Path(error.filename or "a file"), error)
            _say(f"tcam: error: {failed}")
            sys.exit(failed.exit_code)
        except SystemExit as leaving:  # Typer has made an exit of a closed pipe before it gets here
            if isinstance(leaving.__context__, BrokenPipeError):
                sys.exit(0)  # the reader of our stdout went away, as `| head` does
            raise


def _say(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201 (the command's own voice)
