"""What ``tcam export`` does."""

from __future__ import annotations

from pathlib import Path

from pipelines.data.find import find_files
from pipelines.inference.outputs import check_outputs
from pipelines.models.export import ExportRequest, export_run, target_of


def export(request: ExportRequest, *, quiet: bool) -> Path:
    """Export a run, unless that would replace an input or a file that tcam did not write."""
    target = target_of(request)
    weights = [target.with_suffix(".bin")] if request.format == "openvino" else []
    inputs = [] if request.calibrate is None else find_files(request.calibrate)
    check_outputs([target, *weights], inputs, flag="-o")
    return export_run(request, quiet=quiet)
