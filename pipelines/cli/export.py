"""The commands export and bench. Heavy imports happen inside them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.videos import Device, Quiet, RunFolder, RunOrFile
from tcam.errors import ConfigError


class Format(StrEnum):
    """The formats of ``tcam export``."""

    onnx = "onnx"
    openvino = "openvino"
    torch_export = "torch-export"


def export(
    run: RunFolder,
    format_: Annotated[
        Format,
        typer.Option("--format", help="onnx: FILE.onnx; openvino: FILE.xml and FILE.bin; torch-export: FILE.pt2."),
    ] = Format.onnx,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; by default RUN's name in this folder.")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit weights and activations (openvino only); needs --calibrate.")
    ] = False,
    calibrate: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Videos like those to be predicted, to calibrate --int8.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write a run as one file that runs without PyTorch; tcam predict and tcam stream take it in place of RUN."""
    if int8 != (calibrate is not None):
        raise ConfigError("--int8 and --calibrate VIDEOS belong together: name some hundred frames like those to come")
    from pipelines.commands.export import export as write
    from pipelines.models.export import ExportRequest

    request = ExportRequest(run=run, format=format_.value, output=output, calibrate=calibrate)
    typer.echo(write(request, quiet=quiet))


def bench(
    run: RunOrFile,
    source: Annotated[str, typer.Option(help="A video file, or a folder of frames.")],
    frames: Annotated[int, typer.Option(min=1, help="Most frames to measure with.")] = 200,
    batch: Annotated[int, typer.Option(min=1)] = 8,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Measure each stage from video file to boxes, with every installed engine; prints a table on stdout."""
    from pipelines.bench.engines import BenchRequest
    from pipelines.bench.engines import bench as measure

    typer.echo(measure(BenchRequest(run, source, frames, batch, device), quiet=quiet))
