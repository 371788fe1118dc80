"""Files written by ``tcam export`` as engines: ONNX Runtime, OpenVINO, or torch.export (only this one needs PyTorch).

Such a file takes ``frames``, uint8 RGB ``[B, 3, H, W]`` of any B, normalises them itself, and returns
``class_probabilities`` ``[B, K]`` and ``maps`` ``[B, H, W]`` in 0..1. If the map depends on the class, there is a
second input, ``label``, int64 ``[B]``: the class to map, -1 for the most probable one. Everything else that a client
must know is JSON under the key ``tcam`` of the file's metadata: ``Facts``.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from pipelines.models.engine import ArrayMaps, FrameMaps, Threads
from pipelines.models.forks import end_threads_before_forks, keep_for_ever
from pipelines.run.files import hash_file
from tcam.errors import ConfigError, DataError, MissingPartError, WeightsError, one_line
from tcam.video.pixels import Pixels

SUFFIXES: Final[Mapping[str, str]] = MappingProxyType({"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"})
"""Formats and the suffix of their files; OpenVINO keeps the weights in a second file with the suffix ``.bin``."""
FACTS: Final = "tcam"
"""Key of the facts in the file's metadata."""
INPUTS: Final = ("frames", "label")
OUTPUTS: Final = ("class_probabilities", "maps")
_EXTRA: Final = "pip install 'tcam[export]'"
_HINTS: Final = {"fp32": {"INFERENCE_PRECISION_HINT": "f32"}, "bf16": {"INFERENCE_PRECISION_HINT": "bf16"}}
"""Of OpenVINO, by the run's ``precision``; with others it takes bfloat16 where the processor computes in it."""

Arrays = Mapping[str, NDArray[Any]]
Graph = Callable[[Arrays], Sequence[NDArray[Any]]]
"""Inputs by name to outputs in order."""


class Facts(BaseModel):
    """The metadata of a file.

    ``mean`` and ``std`` of red, green and blue in 0..1 are part of the graph. ``threshold`` (of the map, relative to
    its maximum) and ``presence`` (see ``Model``) are not. ``size`` is (height, width) of the frames; ``weights_hash``
    and ``config`` are the run's. ``several_tags``, see ``Model``, is written only where it is true.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1] = 1
    tcam: str
    run: str
    method: str
    classes: tuple[str, ...]
    threshold: float
    presence: float | None = None
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    numbers: Literal["float32", "int8"]
    precision: str
    memory_limit_mb: float
    weights_hash: str | None
    config: dict[str, Any]
    several_tags: bool = False

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if key != "several_tags" or value}


@dataclass(frozen=True, slots=True)
class ExportedEngine:
    """A loaded file; ``by_class`` says whether it has the input ``label``."""

    path: Path
    graph: Graph
    by_class: bool
    threads: Threads

    def find(self, frames: Pixels, label: int | None) -> ArrayMaps:
        """Return the maps of frames; see ``Engine``."""
        inputs: dict[str, NDArray[Any]] = {"frames": frames}
        if self.by_class:
            inputs["label"] = np.full(len(frames), -1 if label is None else label, np.int64)
        probabilities, maps = self.graph(inputs)
        labels = probabilities.argmax(axis=1) if label is None else np.full(len(frames), label, np.int64)
        return FrameMaps(maps, probabilities, labels)

    def pack(self) -> PackedExport:
        """Return the file's path in a form that another process loads."""
        return PackedExport(self.path)

    def after_fork(self) -> ExportedEngine:
        """Load the file again, because the threads of its runtime exist only in the parent process."""
        keep_for_ever(self.graph)
        return self.pack().unpack()


@dataclass(frozen=True, slots=True)
class PackedExport:
    """A file that another process loads from the same path."""

    path: Path

    @property
    def device_type(self) -> str:
        """Exported files run on the CPU."""
        return "cpu"

    def unpack(self) -> ExportedEngine:
        """Load the file."""
        return _load(self.path)[0]

    def file_hash(self) -> str:
        """Return the hash of the file and of its weights file, if it has one."""
        weights = self.path.with_suffix(".bin")
        beside = [hash_file(weights)] if self.path.suffix.lower() == ".xml" and weights.is_file() else []
        return "".join([hash_file(self.path), *beside])


def open_exported(path: Path, *, device: str = "auto") -> tuple[PackedExport, Facts]:
    """Open an exported file and read its metadata.

    Raises:
        DataError: there is no such file.
        ConfigError: a device other than the CPU.
        WeightsError: the file is damaged, or was not written by ``tcam export``.
        MissingPartError: the package that runs it is not installed.
    """
    if device not in ("auto", "cpu"):
        raise ConfigError(f"{path}: exported files run on the CPU, got --device {device}; use cpu, or the run itself")
    if not path.is_file():
        raise DataError(f"expected an exported file at {path}, found none; make one with 'tcam export RUN'")
    return PackedExport(path.absolute()), _load(path)[1]


def _load(path: Path) -> tuple[ExportedEngine, Facts]:
    loaders = {".onnx": _load_onnx, ".xml": _load_openvino, ".pt2": _load_torch}
    graph, inputs, facts = loaders[path.suffix.lower()](path)
    return ExportedEngine(path, graph, "label" in inputs, "one" if path.suffix.lower() == ".pt2" else "all"), facts


def _threads() -> int:
    """Return the number of threads to use, 0 for all; child processes set a variable, as for PyTorch."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _load_onnx(path: Path) -> tuple[Graph, list[str], Facts]:
    try:
        import onnxruntime
    except ImportError:
        raise _missing(path, "ONNX Runtime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has classes of its own for each fault, not exported
        raise _damaged(path, error) from None
    facts = _read_facts(path, session.get_modelmeta().custom_metadata_map.get(FACTS))
    return (lambda inputs: session.run(OUTPUTS, dict(inputs))), [item.name for item in session.get_inputs()], facts


def _load_openvino(path: Path) -> tuple[Graph, list[str], Facts]:
    try:
        import openvino
    except ImportError:
        raise _missing(path, "OpenVINO") from None
    threads = {"INFERENCE_NUM_THREADS": _threads()} if _threads() else {}
    try:
        core = openvino.Core()
        model = core.read_model(path)
        text = model.get_rt_info([FACTS]).astype(str) if model.has_rt_info([FACTS]) else None
        facts = _read_facts(path, text)
        compiled = core.compile_model(model, "CPU", {**threads, **_HINTS.get(facts.precision, {})})
    except RuntimeError as error:
        raise _damaged(path, error) from None
    request = compiled.create_infer_request()

    def compute(inputs: Arrays) -> list[NDArray[Any]]:
        found = request.infer(dict(inputs))
        return [np.array(found[name]) for name in OUTPUTS]  # the request's own memory will be used again

    return compute, [item.any_name for item in model.inputs], facts


def _load_torch(path: Path) -> tuple[Graph, list[str], Facts]:
    import torch

    end_threads_before_forks()
    extra = {FACTS: ""}
    try:
        with quiet_loggers():
            program = torch.export.load(path, extra_files=extra)
    except Exception as error:  # a damaged archive fails in any way
        raise _damaged(path, error) from None
    facts, module = _read_facts(path, extra[FACTS]), program.module()

    @torch.inference_mode()
    def compute(inputs: Arrays) -> list[NDArray[Any]]:
        return [found.numpy() for found in module(*(torch.from_numpy(item) for item in inputs.values()))]

    return compute, list(program.graph_signature.user_inputs), facts


@contextlib.contextmanager
def quiet_loggers() -> Iterator[None]:
    """Silence log messages of other packages that do not concern the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _read_facts(path: Path, text: str | None) -> Facts:
    if not text:
        raise WeightsError(f"{path}: expected a file that 'tcam export' wrote, found no '{FACTS}' in its metadata")
    try:
        return Facts.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise WeightsError(
            f"{path}: its metadata is not this tcam's ({where}: {first['msg']}); export the run again"
        ) from None


def _missing(path: Path, package: str) -> MissingPartError:
    return MissingPartError(f"{path}: running it needs {package}, which is not installed: {_EXTRA}")


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"cannot read the exported model {path}: {one_line(error)}; export the run again")
