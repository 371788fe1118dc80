"""Open the folder of a finished run as a ``Model``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from pipelines.models.device import half_compute
from pipelines.models.engine import Model, Refinement
from pipelines.models.localizer import PackedLocalizer
from pipelines.models.refinement.refined import refined_localizers
from pipelines.models.run import REFINED, Run, load_localizers, load_run, main_localizer
from pipelines.models.thresholds import read_presence, read_thresholds
from pipelines.run.console import console
from pipelines.run.files import hash_file
from pipelines.run.folder import open_run


def model_of_run(folder: Path, *, device: str = "auto", refine: Refinement = "none", half: bool = False) -> Model:
    """Load a finished run; see ``open_model``."""
    run = load_run(open_run(folder), device=device)
    if half:
        fast, run = run.compute.dtype, replace(run, compute=half_compute(run.compute.device))
        if fast == torch.float32 and run.config.precision == "auto":
            console.print("--half: no 16-bit arithmetic here, so this is slower than without; leave it out")
    name, localizers = main_localizer(run), load_localizers(run)
    threshold, presence = own_threshold(run, name), own_presence(run, name)
    if refine != "none":
        localizers = refined_localizers({name: localizers[name]}, {name: threshold}, refine, run.config.cam.walk)
        name = f"{name} + {refine}"
        threshold = refined_threshold(run, name, refine)
    return Model(
        packed=PackedLocalizer.pack(localizers[name]),
        class_names=run.index.class_names,
        size=run.input_size,
        threshold=threshold,
        presence=presence,
        memory_limit_mb=run.config.data.memory_limit_mb,
        about={
            "run": run.folder.name,
            "method": name,
            "classes": list(run.index.class_names),
            "weights_hash": weights_hash(run),
            "arithmetic": str(run.compute.dtype).removeprefix("torch."),
            "config": run.config.model_dump(mode="json"),
        },
        walks=refine == "joint",
        several_tags=localizers[name].network.several_tags,
    )


def own_threshold(run: Run, name: str) -> float:
    """Return the map threshold that a run chose for one of its localizers.

    Raises:
        DataError: the run has chosen none yet.
    """
    return read_thresholds(run.folder / "evaluation" / "thresholds.json")[0][name]


def refined_threshold(run: Run, name: str, refine: Refinement) -> float:
    """Return the map threshold of refined maps: the one chosen by ``tcam evaluate`` or, for ``joint``, in training.

    Where none was chosen, it is 0.5 for ``crf`` (foreground as likely as not), and the default of the settings for
    ``joint``.
    """
    stored = run.folder / REFINED[refine]
    if stored.is_file():
        return read_thresholds(stored)[0][name]
    default = run.config.evaluation.default_threshold if refine == "joint" else 0.5
    remedy = f"'tcam evaluate {run.folder} --refine {refine}' chooses one on boxes"
    console.print(f"--refine {refine}: map threshold {default}; {remedy}")
    return default


def own_presence(run: Run, name: str) -> float | None:
    """Return the presence level that a run chose for one of its localizers; None if it has no validation videos.

    Raises:
        DataError: the run has no thresholds yet.
    """
    return read_presence(run.folder / "evaluation" / "thresholds.json").get(name)


def weights_hash(run: Run) -> str | None:
    """Return the hash of the weights that predictions are made with."""
    stage = "localizer" if run.config.has_localizer else "classifier"
    checkpoint = run.folder / stage / "best_localization.safetensors"
    return hash_file(checkpoint) if checkpoint.is_file() else None
