"""Export a finished run as one file: its network, how its maps are made, and what a client must know.

``pipelines/models/exported.py`` documents the inputs and outputs of such a file, and runs it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.models.calibration import calibration_frames, quantise
from pipelines.models.device import Compute
from pipelines.models.exported import FACTS, INPUTS, OUTPUTS, SUFFIXES, Facts, PackedExport, quiet_loggers
from pipelines.models.localizer import NetworkLocalizer
from pipelines.models.run import Run, load_localizers, load_run, main_localizer
from pipelines.models.run_model import own_presence, own_threshold, weights_hash
from pipelines.run.console import console
from pipelines.run.folder import open_run
from tcam.errors import ConfigError, MissingPartError, TcamError, one_line
from tcam.files import publish, replacing, temporary_name
from tcam.model.cam.inputs import from_head, normalize_cam
from tcam.model.cam.methods import CAM_METHODS, make_cam
from tcam.model.heads.pooling import HEADS
from tcam.model.network import FrameCamNet
from tcam.types import FrameOutput
from tcam.video.pixels import Pixels

TOLERANCE: Final = 1e-3
"""Largest difference of a map or class probability from PyTorch's, both in float32; 1e-5 is usual."""
_INT8: Final = "int8"
_NEEDS: Final = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch-export": (),
}


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Flags of ``tcam export``; ``calibrate`` names the videos for int8, None keeps float32."""

    run: Path
    format: str
    output: Path | None = None
    calibrate: str | None = None


class ExportedNetwork(nn.Module):
    """A ``NetworkLocalizer`` as a graph: frames ``[B, 3, H, W]`` to probabilities ``[B, K]`` and maps ``[B, H, W]``.

    Args:
        network: in evaluation mode.
        method: ``decoder``, or a CAM method that needs no second pass (see ``check_method``).
    """

    def __init__(self, network: FrameCamNet, method: str) -> None:
        super().__init__()
        self.network, self.method = network, method

    def forward(self, frames: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return probabilities and maps; ``label`` ``[B]``, if maps are of one class: -1 for the most probable."""
        output: FrameOutput = self.network(frames, label if self.network.several_tags else None)
        probabilities = self.network.probabilities(output.class_logits)
        if label is None or output.map_logits is not None:
            assert output.map_logits is not None
            return probabilities, output.map_logits.softmax(dim=1)[:, 1]
        chosen = torch.where(label < 0, probabilities.argmax(dim=1), label)
        inputs = from_head(output.features, chosen, self.network.head, prior=self.network.prior)
        coarse = normalize_cam(make_cam(self.method, inputs))
        size = (frames.shape[2], frames.shape[3])
        return probabilities, functional.interpolate(coarse[:, None], size=size, mode="bilinear")[:, 0]


def export_run(request: ExportRequest, *, quiet: bool) -> Path:
    """Write a run as one file, run it, and compare it with PyTorch; returns the path.

    Raises:
        DataError: no finished run, or no calibration videos.
        ConfigError: a wrong file name, a method or network that cannot be exported, int8 elsewhere than in OpenVINO.
        MissingPartError: the exporter is not installed.
    """
    console.quiet = quiet
    if request.calibrate is not None and request.format != "openvino":
        raise ConfigError("--int8 is for --format openvino; leave it out, or choose that format")
    target = target_of(request)
    folder = open_run(request.run)
    with quiet_loggers():
        require_exporter(request)
    run = load_run(folder, device="cpu")
    localizer = load_localizers(run)[main_localizer(run)]
    check_method(localizer)
    facts = facts_of(run, localizer, numbers=_INT8 if request.calibrate is not None else "float32")
    calibration = None if request.calibrate is None else calibration_frames(request.calibrate, run.input_size)
    with warnings.catch_warnings(), quiet_loggers(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        write_export(localizer, facts, target, calibration=calibration)
    check_difference(localizer, target, facts)
    return target


def target_of(request: ExportRequest) -> Path:
    """Return the path of the file that will be written.

    Raises:
        ConfigError: the name has another ending than the format.
    """
    target = request.output or Path(f"{request.run.resolve().name}{SUFFIXES[request.format]}")
    if target.suffix.lower() != SUFFIXES[request.format]:
        raise ConfigError(
            f"-o {target}: --format {request.format} writes a file that ends in {SUFFIXES[request.format]}"
        )
    return target


def check_method(localizer: NetworkLocalizer) -> None:
    """Refuse CAM methods that need more than one forward pass.

    Raises:
        ConfigError: the CAM method needs a gradient or further passes.
    """
    forward_only = localizer.method in ("decoder", "cam") or CAM_METHODS[localizer.method].of_imagenet
    if not forward_only and (localizer.network.head.pooled_weight is None or not CAM_METHODS[localizer.method].closed):
        kind = type(localizer.network.head)
        head = next((name for name, known in HEADS.items() if known is kind), kind.__name__)
        raise ConfigError(
            f"cam.method {localizer.method} with pooling {head} needs a backward pass or several forward ones, which "
            "no exported file has; export a run of --method tcam or colocam, or one with cam.method=cam"
        )


def facts_of(run: Run, localizer: NetworkLocalizer, *, numbers: str = "float32") -> Facts:
    """Return the facts that a client must know."""
    name, backbone = main_localizer(run), localizer.network.backbone
    return Facts(
        tcam=importlib.metadata.version("tcam"),
        run=run.folder.resolve().name,
        method=name,
        classes=run.index.class_names,
        threshold=own_threshold(run, name),
        presence=own_presence(run, name),
        size=run.input_size,
        mean=backbone.mean,
        std=backbone.std,
        numbers=numbers,
        precision=run.config.precision,
        memory_limit_mb=run.config.data.memory_limit_mb,
        weights_hash=weights_hash(run),
        config=_without_folders(run.config.model_dump(mode="json")),
        several_tags=localizer.network.several_tags,
    )


def _without_folders(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce paths to the names of files and folders: where they are on this machine is private."""
    return {
        key: _without_folders(value)
        if isinstance(value, Mapping)
        else _name_alone(value)
        if isinstance(value, str)
        else value
        for key, value in settings.items()
    }


def _name_alone(value: str) -> str:
    is_path = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()
    return PureWindowsPath(value).name if is_path else value


def require_exporter(request: ExportRequest) -> None:
    """Check that the packages that write and run the format are installed.

    Raises:
        MissingPartError: one is not.
    """
    for package in (*_NEEDS[request.format], *(() if request.calibrate is None else ("nncf",))):
        try:
            importlib.import_module(package)
        except ImportError:
            raise MissingPartError(
                f"--format {request.format} needs {package}, which is not installed: pip install 'tcam[export]'"
            ) from None


def write_export(localizer: NetworkLocalizer, facts: Facts, target: Path, *, calibration: Pixels | None = None) -> None:
    """Write the file; its suffix determines the format.

    Raises:
        ConfigError: the network cannot be traced.
        DataError: the file cannot be written.
    """
    console.print(f"exporting {facts.run} ({facts.method})")
    if target.suffix.lower() == ".pt2":
        program = make_program(localizer, facts)
        with replacing(target) as temporary:
            buffer = io.BytesIO()  # a file must end in .pt2 for it, and the temporary one does not
            torch.export.save(program, buffer, extra_files={FACTS: facts.model_dump_json()})
            temporary.write_bytes(buffer.getbuffer())
        return
    graph = _make_onnx(localizer, facts)
    if target.suffix.lower() == ".onnx":
        with replacing(target) as temporary:
            temporary.write_bytes(graph)
        return
    write_openvino(graph, facts, target, calibration)


def make_program(localizer: NetworkLocalizer, facts: Facts) -> torch.export.ExportedProgram:
    """Trace the network for any number of frames.

    Raises:
        ConfigError: it cannot be traced.
    """
    inputs = example_inputs(localizer, facts)
    batch = torch.export.Dim("batch")
    module = ExportedNetwork(localizer.network, localizer.method).eval()
    try:
        with torch.no_grad():
            program = torch.export.export(module, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))
    except Exception as error:  # the tracer has dozens of error types
        name = localizer.network.backbone.name
        raise ConfigError(
            f"network '{name}' cannot be exported: {one_line(error)}; train with another backbone"
        ) from None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names files of this machine, and would go with the model
    return program


def example_inputs(localizer: NetworkLocalizer, facts: Facts, *, count: int = 3) -> tuple[Tensor, ...]:
    """Return noise to trace and compare with: frames and, where a map is of one class, labels (-1: most probable)."""
    seeded, one_map = torch.Generator().manual_seed(0), localizer.method == "decoder" and not facts.several_tags
    frames = torch.randint(0, 256, (count, 3, *facts.size), dtype=torch.uint8, generator=seeded)
    return (frames,) if one_map else (frames, torch.full((count,), -1))


def _make_onnx(localizer: NetworkLocalizer, facts: Facts) -> bytes:
    program = make_program(localizer, facts)
    inputs = INPUTS[: len(program.graph_signature.user_inputs)]
    made: Any = torch.onnx.export(program, (), input_names=inputs, output_names=OUTPUTS, verbose=False)
    proto = made.model_proto
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del proto.metadata_props[:]
    proto.metadata_props.add(key=FACTS, value=facts.model_dump_json())
    return bytes(proto.SerializeToString())


def write_openvino(graph: bytes, facts: Facts, target: Path, calibration: Pixels | None) -> None:
    """Write an ONNX graph as OpenVINO's two files, with 8-bit weights if there are frames to calibrate on."""
    import openvino

    model = openvino.Core().read_model(graph)
    model = model if calibration is None else quantise(model, calibration)
    model.set_rt_info(facts.model_dump_json(), [FACTS])
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = temporary_name(target)
    folder.mkdir()
    try:
        openvino.save_model(model, folder / target.name, compress_to_fp16=False)
        weights = target.with_suffix(".bin").name
        publish(folder / weights, target.with_name(weights))
        publish(folder / target.name, target)
    finally:
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()


def check_difference(localizer: NetworkLocalizer, target: Path, facts: Facts) -> None:
    """Run the file on noise, compare it with PyTorch, and print the largest difference.

    Raises:
        TcamError: it exceeds ``TOLERANCE`` although both compute in float32.
    """
    frames = example_inputs(localizer, facts)[0].numpy()
    wanted = NetworkLocalizer(localizer.network, localizer.method, Compute(torch.device("cpu"), torch.float32)).find(
        frames, None
    )
    found = PackedExport(target.absolute()).unpack().find(frames, None)
    pairs: Sequence[tuple[Any, Any]] = ((found.maps, wanted.maps), (found.probabilities, wanted.probabilities))
    maps, scores = (float(np.abs(a - b).max()) for a, b in pairs)
    files = [target, target.with_suffix(".bin")] if target.suffix.lower() == ".xml" else [target]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    console.print(
        f"{target}: {megabytes:.1f} MB; largest difference from PyTorch in float32: "
        f"map {maps:.1g}, class score {scores:.1g}"
    )
    exact = facts.numbers == "float32" and (target.suffix != ".xml" or facts.precision == "fp32")
    if exact and max(maps, scores) > TOLERANCE:
        raise TcamError(
            f"{target} differs from PyTorch by {max(maps, scores):.2g}, more than {TOLERANCE:g}: do not use it; "
            "choose another format and report this"
        )
