"""The engines that a trained run can be measured on: PyTorch in its precisions, compiled, and the exported formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from pipelines.models.compiled import compile_localizer
from pipelines.models.device import Compute, choose_compute
from pipelines.models.engine import Engine, Threads
from pipelines.models.export import ExportRequest, export_run
from pipelines.models.exported import SUFFIXES, PackedExport
from pipelines.models.localizer import NetworkLocalizer
from pipelines.models.run import load_localizers, load_run, main_localizer
from pipelines.run.console import console
from pipelines.run.folder import open_run
from tcam.errors import ConfigError, MissingPartError
from tcam.types import Size


def engines_of_run(
    folder: Path,
    workspace: Path,
    *,
    device: str,
    size: Size,
    batch: int,
    threads: Threads = "all",
    calibrate: str | None = None,
) -> dict[str, Callable[[], Engine]]:
    """Return the engines by name, each as a function that starts it.

    Args:
        folder: of the run.
        workspace: where exported files are written now; a format whose packages are missing is reported on stderr.
        device: of PyTorch; the exported files run on the CPU and are left out elsewhere.
        size: of the frames.
        batch: frames per batch.
        threads: what the network is compiled for, see ``compile_localizer``.
        calibrate: videos to calibrate 8-bit quantization on; None leaves OpenVINO with 8 bits out.
    """
    run = load_run(open_run(folder), device=device)
    localizer = load_localizers(run)[main_localizer(run)]
    starts: dict[str, Callable[[], Engine]] = {}
    kinds = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    for dtype in dict.fromkeys((torch.float32, choose_compute(device, "auto").dtype)):
        own = replace(localizer, compute=Compute(run.compute.device, dtype))
        starts[f"pytorch {kinds[dtype]}"] = partial(_as_it_is, own)
        starts[f"pytorch {kinds[dtype]} compiled"] = partial(compile_localizer, own, size, batch=batch, threads=threads)
    exports: list[tuple[str, str, str | None]] = [("onnxruntime", "onnx", None), ("openvino", "openvino", None)]
    if calibrate is not None:
        exports.append(("openvino int8", "openvino", calibrate))
    for name, file_format, videos in exports if device in ("auto", "cpu") else ():
        target = workspace / f"{name.replace(' ', '-')}{SUFFIXES[file_format]}"
        try:
            export_run(ExportRequest(folder, file_format, target, videos), quiet=console.quiet)
        except (ConfigError, MissingPartError) as error:
            console.print(f"left out {name}: {error}")
            continue
        starts[name] = PackedExport(target).unpack
    return starts


def _as_it_is(localizer: NetworkLocalizer) -> Engine:
    return localizer
