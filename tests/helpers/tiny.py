"""A run small enough for tests: settings, data by hand, and a way to call the command line; helpers of these tests."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import yaml
from safetensors.torch import save_file

from pipelines.config.schema import RunConfig, load_config
from pipelines.models.device import Compute
from pipelines.models.localizer import MapMethod, NetworkLocalizer, build_network
from tcam.types import Box, FrameTruth, Shot, VideoIndex, VideoRecord
from tests.helpers.encoded import encode

SIDE = 64
SETTINGS = (
    "device=cpu",
    "precision=fp32",
    "data.workers=0",
    "data.cache_short_side=64",
    "input.resize=72",
    f"input.crop={SIDE}",
    "model.backbone=test_resnet",
    "model.output_stride=8",
    "model.weights=random",
    "model.levels_used=3",  # of five: half the layers to run, compile and export
    "model.decoder_channels=[8,8,8]",
    "classifier.epochs=1",
    "classifier.batch=2",
    "localizer.epochs=1",
    "localizer.batch=2",
    "evaluation.threshold_step=0.1",
    "evaluation.selection_frames=2",
)
WHOLE = ("model.levels_used=null", "model.decoder_channels=[8,8,8,8,8]")
"""All levels of the tiny network."""
CPU = Compute(torch.device("cpu"), torch.float32)


@dataclass(frozen=True)
class TinyRun:
    """A finished run, the folder of runs it lies in, its videos and the cache folder."""

    folder: Path
    videos: Path
    home: Path


@dataclass(frozen=True)
class Outcome:
    """What a call of the command line left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that says what is wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("tcam: error: ")]
        assert len(lines) == 1, self.err
        assert self.err.splitlines()[-1] == lines[0], self.err
        assert "Traceback" not in self.err
        return lines[0].removeprefix("tcam: error: ")


def tiny_config(*overrides: str) -> RunConfig:
    return load_config(None, [*SETTINGS, *overrides])


def tiny_localizer(method: MapMethod = "layercam", *, seed: int = 0, classes: int = 2) -> NetworkLocalizer:
    network = build_network(tiny_config().model, classes, decoder=method == "decoder", seed=seed)
    return NetworkLocalizer(network.eval(), method, CPU)


def write_imagenet_weights(path: Path) -> Path:
    """Write all weights of the tiny backbone at random, with an ImageNet classifier strong enough to be certain."""
    torch.manual_seed(0)
    layers = timm.create_model("test_resnet").state_dict()
    layers["fc.weight"] = 3 * torch.randn(1000, 96)
    save_file({name: value.half() for name, value in layers.items()}, path)
    return path


def set_walk(run: Path, **settings: int) -> None:
    """Change the settings of the walk in a copy of a run."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["cam"]["walk"] = {**config["cam"].get("walk", {}), **settings}
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def set_flags(settings: Sequence[str] = SETTINGS) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def record(name: str, label: int, *, split: str = "train", shots: Sequence[tuple[int, int]] = ((0, 4),)) -> VideoRecord:
    """A video that is never opened."""
    return VideoRecord(
        video_id=name,
        path=f"/nowhere/{name}",
        label=label,
        num_frames=shots[-1][1],
        size=(SIDE, SIDE),
        fps=24.0,
        split=split,
        shots=tuple(Shot(start, stop) for start, stop in shots),
    )


def whole_frame_truth(index: VideoIndex, frames: Sequence[int] = (0, 5)) -> tuple[FrameTruth, ...]:
    """Say that the object fills the whole of some frames of every video."""
    return tuple(
        FrameTruth(item.video_id, frame, item.label, (Box(0, 0, item.size[1], item.size[0]),))
        for item in index.records
        for frame in frames
    )


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder with their bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def spoil(folder: Path) -> dict[str, str]:
    """Put four files that are no videos beside good ones."""
    whole = encode(folder / "whole.mp4", frames=8)  # its table of contents comes last
    (folder / "truncated.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    whole.unlink()
    (folder / "broken.mp4").write_bytes(bytes(range(256)) * 40)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("hello\n")
    return {name: f"{folder.name}/{name}.mp4" for name in ("truncated", "broken", "empty", "text")}


def read_errors(path: Path) -> dict[str, str]:
    """errors.csv as reasons by video."""
    with path.open() as stream:
        return {row["video"]: row["reason"] for row in csv.DictReader(stream)}
