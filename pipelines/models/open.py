"""Open a trained run or an exported file in the same form. PyTorch is loaded only for a run."""

from __future__ import annotations

from pathlib import Path

from pipelines.models.engine import Model, Refinement
from pipelines.models.exported import SUFFIXES, open_exported
from tcam.errors import ConfigError


def open_model(path: Path, *, device: str = "auto", refine: Refinement = "none", half: bool = False) -> Model:
    """Open the RUN of ``tcam predict``: the folder of a finished run, or a file written by ``tcam export``.

    Args:
        path: the folder or file.
        device: where it runs.
        refine: what goes over the maps of a run at the end.
        half: let the network of a run compute in 16 bits, whatever its ``precision`` says.

    Raises:
        DataError: it is neither, or the run has no map threshold yet.
        ConfigError: no such device, or an exported file with another device than the CPU, ``refine`` or ``half``.
        MissingPartError: weights are missing or damaged, or the package that runs the file is not installed.
    """
    if path.suffix.lower() not in SUFFIXES.values() or path.is_dir():
        from pipelines.models.run_model import model_of_run

        return model_of_run(path, device=device, refine=refine, half=half)
    if half:
        raise ConfigError(f"--half is for a run, got the exported file {path}: it has the numbers it was exported with")
    if refine != "none":
        raise ConfigError(f"--refine {refine} is for a run, got the exported file {path}: name the run, or omit it")
    packed, facts = open_exported(path, device=device)
    return Model(
        packed=packed,
        class_names=facts.classes,
        size=facts.size,
        threshold=facts.threshold,
        presence=facts.presence,
        memory_limit_mb=facts.memory_limit_mb,
        several_tags=facts.several_tags,
        about={
            "run": facts.run,
            "method": facts.method,
            "classes": list(facts.classes),
            "weights_hash": facts.weights_hash,
            "exported": packed.file_hash(),
            "config": facts.config,
        },
    )
