"""The commands for models that leave the lab: export, bench. Heavy imports happen inside them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli_videos import Quiet, RunFolder
from tcam.errors import ConfigError


class Format(StrEnum):
    """What ``tcam export`` writes."""

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
        Path | None, typer.Option("--output", "-o", help="The file; RUN's name here if left out.")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Weights and sums of 8 bits (openvino): needs --calibrate.")
    ] = False,
    calibrate: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Videos like those to come, for --int8.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write a run as one file that runs without PyTorch; tcam predict and tcam stream take it in place of RUN."""
    if int8 != (calibrate is not None):
        raise ConfigError("--int8 and --calibrate VIDEOS belong together: name some hundred frames like those to come")
    from pipelines.export import ExportRequest, export_run

    request = ExportRequest(run=run, format=format_.value, output=output, calibrate=calibrate)
    typer.echo(export_run(request, quiet=quiet))
