"""A run folder: its settings, its data, its stages and its trained localizers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipelines.config.fingerprint import settings_that_count
from pipelines.config.schema import RunConfig, load_config
from pipelines.data.negatives import Slot, find_negatives, negatives_fingerprint, read_background
from pipelines.models.checkpoint import load_weights
from pipelines.models.device import Compute, choose_compute
from pipelines.models.localizer import NetworkLocalizer, build_classifier, build_network
from pipelines.run.files import hash_file, hash_json
from pipelines.run.stage import Stage
from tcam.errors import DataError
from tcam.model.network import FrameCamNet
from tcam.types import FrameTruth, Size, VideoIndex, VideoRecord
from tcam.video.index import has_several_tags, read_index, read_truth

FORMATS = {"classifier": 1, "cams": 1, "localizer": 2}
"""Part of each stage's fingerprint: raise a stage's number when the same settings would give another result."""


REFINED: Final = {name: Path(f"evaluation-{name}/thresholds.json") for name in ("crf", "joint")}
"""Files in a run folder: the map thresholds that ``tcam evaluate --refine NAME`` chose for refined maps."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder with its settings and data. The methods below return its stages, in order."""

    folder: Path
    config: RunConfig
    compute: Compute
    index: VideoIndex
    truth: tuple[FrameTruth, ...]
    background: tuple[VideoRecord, ...] = ()

    @property
    def input_size(self) -> Size:
        """Network input, (height, width)."""
        return self.config.input.crop, self.config.input.crop

    def network(self, *, decoder: bool, seed: int = 0) -> FrameCamNet:
        """Build the network of the localizer or, without decoder, of the classifier, with random weights."""
        classes, several = len(self.index.class_names), has_several_tags(self.index)
        if decoder:
            return build_network(self.config.model, classes, decoder=True, seed=seed, several_tags=several)
        return build_classifier(self.config, classes, seed=seed, several_tags=several)

    def stage(self, name: str, depends_on: Mapping[str, Any], folder: str | None = None) -> Stage:
        """Return a stage: its folder, called like it where not given, and the hash of everything it depends on."""
        return Stage(self.folder / (folder or name), hash_json({"format": FORMATS[name], "stage": name, **depends_on}))

    def classifier_stage(self) -> Stage:
        """The stage that trains the frame classifier."""
        config = self.config.model_dump(mode="json")
        weights = self.config.model.weights
        return self.stage(
            "classifier",
            {
                **{key: config[key] for key in ("seed", "precision", "input")},
                "evaluation": _without_unused(config["evaluation"]),
                "classifier": settings_that_count(_that_matters(config["classifier"])),
                "model": {
                    key: value
                    for key, value in config["model"].items()
                    if key not in ("decoder", "decoder_channels", "weights")
                },
                "weights": hash_file(Path(weights)) if Path(weights).is_file() else weights,
                "cam": config["cam"]["method"],
                **({"features": "kept"} if self.config.keeps_features else {}),
                "data": _data_fingerprint(self.index, self.truth),
            },
        )

    def cams_stage(self, round_: int = 1) -> Stage:
        """The stage that caches the training frames' CAMs; from round 2 on, the maps of the round before."""
        cam, choices = self.config.cam, self.config.localizer.frame_choices
        refined: dict[str, Any] = {}
        if cam.refine != "none":
            refined = {"refine": cam.refine, "walk": cam.walk.model_dump(mode="json")}
        refined |= {} if choices is None else {"frame_choices": choices}
        if round_ > 1:
            return self.stage(
                "cams", {"localizer": self.localizer_stage(round_ - 1).fingerprint, **refined}, f"cams-{round_}"
            )
        return self.stage("cams", {"classifier": self.classifier_stage().fingerprint, "cam": cam.method, **refined})

    def localizer_stage(self, round_: int | None = None) -> Stage:
        """The stage that trains the decoder, in the last round or another one."""
        config = self.config.model_dump(mode="json")
        round_ = self.config.localizer.rounds if round_ is None else round_
        settings = {key: value for key, value in config["localizer"].items() if key not in ("rounds", "average_rounds")}
        average = self.config.localizer.average_rounds and round_ > 1
        decoder, negatives = self.config.model.decoder, self.negatives()
        return self.stage(
            "localizer",
            {
                "cams": self.cams_stage(round_).fingerprint,
                "method": config["method"],
                "localizer": _that_matters(settings),
                "decoder": config["model"]["decoder_channels"] if decoder == "unet" else decoder,
                **({"average_rounds": True} if average else {}),
                **({"negatives": negatives_fingerprint(negatives)} if negatives else {}),
            },
            localizer_folder(round_, self.config.localizer.rounds),
        )

    def negatives(self) -> tuple[Slot, ...]:
        """Return the shots without an object that the method trains on."""
        return find_negatives(self.config, self.index, self.truth, self.background)


def localizer_folder(round_: int, rounds: int) -> str:
    """Return the name of the stage, and of its folder, that trains the localizer of a round, from 1 to ``rounds``."""
    return "localizer" if round_ == rounds else f"localizer-{round_}"


def load_run(folder: Path, *, device: str = "auto") -> Run:
    """Open a finished run for prediction or evaluation."""
    config = load_config(folder / "config.yaml")
    index = read_index(folder / "index" / "index.json")
    truth = read_truth(folder / "index" / "truth.csv", index)
    background = read_background(folder / "index", config)
    return Run(folder, config, choose_compute(device, config.precision), index, truth, background)


def load_localizers(run: Run) -> dict[str, NetworkLocalizer]:
    """Load the localizers of a run by name: the CAM of its classifier and, if it trained one, the localizer.

    Raises:
        WeightsError: a checkpoint is missing or damaged.
    """
    config, classifier = run.config, run.network(decoder=False)
    loaded: dict[str, NetworkLocalizer] = {}
    load_weights(classifier, run.folder / "classifier" / "best_localization.safetensors")
    loaded[config.cam.method] = NetworkLocalizer(
        classifier.to(run.compute.device).eval(), config.cam.method, run.compute
    )
    if config.has_localizer:
        network = run.network(decoder=True)
        load_weights(network, run.folder / "localizer" / "best_localization.safetensors")
        loaded[config.method] = NetworkLocalizer(network.to(run.compute.device).eval(), "decoder", run.compute)
    return loaded


def main_localizer(run: Run) -> str:
    """Return the name of the localizer that ``tcam predict`` uses."""
    return run.config.method if run.config.has_localizer else run.config.cam.method


def _that_matters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a training without the number of workers, which does not change the clips."""
    return {**_without_unused(settings), "workers": 0}


def _without_unused(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave later additions out as long as they are not used, so that runs of earlier versions are still found."""
    if settings.get("joint", {}).get("space") == "colour":  # its settings for features are not used
        joint = {key: settings["joint"][key] for key in ("weight", "adaptive", "sigma_rgb")}
        settings = {**settings, "joint": joint}
    unused = {"optimizer": "sgd", "soft": {"weight": 0.0}, "frame_choices": None, "selection": "auto"}
    return {key: value for key, value in settings.items() if key not in unused or value != unused[key]}


def _data_fingerprint(index: VideoIndex, truth: tuple[FrameTruth, ...]) -> str:
    """Return the hash of the training data: tags, frames (cache files are named by content) and validation boxes."""
    records = [
        (r.video_id, r.label, r.num_frames, r.split, Path(r.cache_path).name if r.cache_path else r.path)
        + ((list(r.also),) if r.also else ())
        for r in index.records
    ]
    val = {record.video_id for record in index.of_split("val")}
    boxes = [(t.video_id, t.frame_index, [list(box) for box in t.boxes]) for t in truth if t.video_id in val]
    return hash_json([index.class_names, records, boxes])


def videos_of_run(run: Path) -> Path:
    """Return the folder of videos that a run was trained on.

    Raises:
        DataError: the run does not record it.
    """
    try:
        return Path(json.loads((run / "env.json").read_text(encoding="utf-8"))["videos"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{run / 'env.json'} does not say which videos the run is of: pass --videos FOLDER") from None
