"""A trained run or an exported file, opened for use: one shape for both; PyTorch is loaded for a run alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.models.engine import PackedEngine
from pipelines.models.exported import SUFFIXES, open_exported
from tcam.errors import ConfigError
from tcam.types import Size


@dataclass(frozen=True, slots=True)
class Model:
    """What boxes are made with.

    Attributes:
        packed: what makes maps of frames.
        class_names: names behind the labels.
        size: (height, width) of the frames it takes.
        threshold: the map threshold that the run chose.
        presence: below it a frame seems to hold nothing (``tcam.boxes.over_time.presence_of``); None: unknown.
        memory_limit_mb: of a process that works with it.
        about: what a box table says of where it comes from.
    """

    packed: PackedEngine
    class_names: tuple[str, ...]
    size: Size
    threshold: float
    presence: float | None
    memory_limit_mb: float
    about: Mapping[str, object]

    def label_of(self, class_name: str | None) -> int | None:
        """Return the label of a class by its name; None for None.

        Raises:
            ConfigError: there is no such class.
        """
        if class_name is None:
            return None
        if class_name not in self.class_names:
            raise ConfigError(f"--class {class_name}: the run knows {', '.join(self.class_names)}")
        return self.class_names.index(class_name)


def open_model(path: Path, *, device: str = "auto", refine: bool = False, half: bool = False) -> Model:
    """Open what ``tcam predict`` takes as RUN: the folder of a finished run, or a file that ``tcam export`` wrote.

    Args:
        path: of either.
        device: where it runs.
        refine: refine the maps of a run by a CRF.
        half: let the network of a run compute in 16 bits, whatever its ``precision`` says.

    Raises:
        DataError: it is neither, or the run has no map threshold yet.
        ConfigError: no such device, or one on which an exported file does not run; or one to refine or halve.
        MissingPartError: weights are missing or damaged, or the package that runs the file is not installed.
    """
    if path.suffix.lower() not in SUFFIXES.values() or path.is_dir():
        from pipelines.models.run_model import model_of_run

        return model_of_run(path, device=device, refine=refine, half=half)
    if half:
        raise ConfigError(f"--half is for a run, got the exported file {path}: it has the numbers it was exported with")
    if refine:
        raise ConfigError(f"--refine crf is for a run, got the exported file {path}: name the run, or leave it out")
    packed, facts = open_exported(path, device=device)
    return Model(
        packed=packed,
        class_names=facts.classes,
        size=facts.size,
        threshold=facts.threshold,
        presence=facts.presence,
        memory_limit_mb=facts.memory_limit_mb,
        about={
            "run": facts.run,
            "method": facts.method,
            "classes": list(facts.classes),
            "weights_hash": facts.weights_hash,
            "exported": packed.file_hash(),
            "config": facts.config,
        },
    )
