"""All settings of a run and their defaults; read from YAML and ``--set a.b=c``, checked before anything runs.

The defaults are the published settings of TCAM (arXiv 2208.14542) with a ResNet-50. ``METHODS`` in
``config/methods.py`` holds what other methods change. Files under ``configs/`` change what data and hardware need.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from pipelines.config.groups import (
    ACOL_DEFAULTS,
    AdlSettings,
    CutMixSettings,
    Fraction,
    HideAndSeekSettings,
    OptimizerSettings,
    Positive,
    asks_for_acol,
)
from pipelines.config.groups import Settings as _Settings
from pipelines.config.localizer_groups import LocalizerSettings
from pipelines.config.methods import METHODS
from pipelines.config.yaml_file import apply_override, explain, read_yaml
from pipelines.run.files import write_text
from tcam.errors import ConfigError
from tcam.model.cam.methods import CAM_METHODS
from tcam.model.heads.pooling import HEADS, WITH_BACKGROUND
from tcam.video.data_folder.box_columns import Units
from tcam.video.data_folder.clip_tables import BoxConvention


def _one_of(table: Collection[str]) -> AfterValidator:
    """Accept only the names in a table, including those added to it later."""

    def check(name: str) -> str:
        if name not in table:
            raise ValueError(f"expected one of {', '.join(table)}, found '{name}'")
        return name

    return AfterValidator(check)


class DataSettings(_Settings):
    """How videos become an index and a frame cache."""

    val_fraction: Fraction = Field(0.15, description="share of a class's videos, where no clips.csv names splits")
    test_fraction: Fraction = Field(0.25, description="share of a class's videos, where no clips.csv names splits")
    cache_short_side: Positive = Field(256, description="short side in pixels of the all-intra frame cache")
    time_limit_s: float = Field(
        30.0, gt=0, description="wall time to probe and cache one video, plus a second per 200 kB"
    )
    memory_limit_mb: float = Field(4000.0, gt=0, description="memory of a child process that works on videos")
    workers: int = Field(2, ge=0, description="child processes that probe and cache videos")
    follow_links: bool = Field(False, description="use videos that are links to places outside the data folder")
    background: str | None = Field(None, description="folder of videos without any object, for the method negev")
    units: Units | None = Field(
        None, description="of boxes in boxes.csv, where it has no column units; null: pixels, unless they look relative"
    )
    first_frame: Literal[0, 1] | None = Field(
        None, description="number of a video's first frame in boxes.csv; null: 0, unless they look counted from 1"
    )

    @property
    def convention(self) -> BoxConvention:
        """Units and first frame number of boxes.csv."""
        return BoxConvention(self.units, self.first_frame)

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            found = f"{self.val_fraction:g} and {self.test_fraction:g}"
            raise ValueError(f"val_fraction and test_fraction must be below 1 in sum: found {found}")
        return self


class InputSettings(_Settings):
    """What the network sees: frames resized to a square (aspect not kept), then a random crop in training."""

    resize: Positive = Field(256, description="side of the square that a frame is resized to")
    crop: Positive = Field(224, description="side of the random crop, and of the input in prediction")

    @model_validator(mode="after")
    def _cut_inside(self) -> Self:
        if self.crop > self.resize:
            raise ValueError(f"crop must be at most resize: found {self.crop} and {self.resize}")
        return self


class ModelSettings(_Settings):
    """The frame network."""

    backbone: str = Field("resnet50", description="a timm model: convolutional, or a ViT, DeiT or DINO")
    backbone_options: dict[str, Any] = Field(default_factory=dict, description="keywords of timm.create_model")
    levels_used: Positive | None = Field(None, description="keep only the first levels of the pyramid")
    output_stride: Literal[8, 16, 32] | None = Field(8, description="of the last feature map; None: the model's own")
    weights: str = Field("imagenet", description="a file, imagenet (downloads) or random")
    allow_missing: tuple[str, ...] = Field((), description="layer prefixes the weight file may lack")
    decoder: Literal["unet", "levels", "pixels"] = Field(
        "unet",
        description="levels: a small head at 1/16 of the frame, for frozen backbones and few videos; pixels: a 1 x 1 "
        "convolution of the last features",
    )
    decoder_channels: tuple[Positive, ...] = Field(
        (256, 128, 64, 32, 16), description="of a block per level, coarse to fine; one fewer: a light decoder"
    )
    pooling: Annotated[str, _one_of(HEADS)] = Field("wgap", description="how features become class scores")
    background: bool = Field(False, description="one map more, of what belongs to no class; not with wgap, attention")

    @model_validator(mode="after")
    def _have_a_background(self) -> Self:
        if self.background and self.pooling not in WITH_BACKGROUND:
            have = ", ".join(WITH_BACKGROUND)
            raise ValueError(f"background needs a pooling with maps of its own ({have}): found {self.pooling}")
        return self


class ClassifierSettings(OptimizerSettings):
    """Stage 1: the frame classifier, trained from tags.

    A ``baseline`` acts only in training; its constants are in the group of its name. ``acol`` is a class head too:
    ``model.pooling`` is then ``acol``, and ``cam.method`` by default the head's own map, ``cam``.
    """

    baseline: Literal["none", "hide_and_seek", "cutmix", "adl", "acol"] = "none"
    hide_and_seek: HideAndSeekSettings = HideAndSeekSettings()
    cutmix: CutMixSettings = CutMixSettings()
    adl: AdlSettings = AdlSettings()

    late_lr_ratio: float = Field(10.0, gt=0, description="learning rate of the last level and the head, over lr")
    freeze_batch_norm: bool = Field(False, description="keep ImageNet BatchNorm statistics (small batches)")
    freeze_backbone: bool = Field(False, description="train only the head: fine-tuning overfits few videos")

    @model_validator(mode="after")
    def _let_adl_teach_the_backbone(self) -> Self:
        if self.baseline == "adl" and self.freeze_backbone:
            raise ValueError("baseline adl teaches the backbone, which freeze_backbone=true keeps: found both")
        return self


class WalkSettings(_Settings):
    """The walk of ``cam.refine=joint``: see ``tcam/supervision/joint_walk.py``."""

    sigma: float = Field(0.4, gt=0, description="reach of the affinity of two positions' features")
    momentum: float = Field(0.95, ge=0, le=1, description="share of each step that comes from like positions")
    steps: Positive = Field(30, description="steps of the walk")
    components: Positive = Field(8, description="principal components of the features")
    window: Positive = Field(8, description="frames whose CAMs agree")
    stride: Positive = Field(3, description="step between these frames; less in a shot with fewer than window * stride")


class CamSettings(_Settings):
    """The CAM cache that seeds the localizer, and the CAM that the cam method predicts with."""

    method: Annotated[str, _one_of(CAM_METHODS)] = Field(
        "layercam",
        description="scorecam, sscam and iscam run the network once or more for each channel; prior needs weights with "
        "their ImageNet classifier and classifier.freeze_backbone=true",
    )
    batch: Positive = Field(32, description="frames per forward pass")
    refine: Literal["none", "joint"] = Field(
        "none", description="joint: the cached CAMs of a shot agree with each other, in feature space"
    )
    walk: WalkSettings = WalkSettings()


class EvaluationSettings(_Settings):
    """How maps become boxes and boxes become CorLoc."""

    iou_threshold: Fraction = Field(0.5, description="IoU from which a box is right")
    threshold_step: float = Field(0.004, gt=0, le=0.5, description="grid of map thresholds from 0 to 1")
    selection: Literal["auto", "tags", "default"] = Field(
        "auto",
        description="what chooses map threshold and checkpoint; auto: validation boxes, or tags where there are none; "
        "default: default_threshold and the last checkpoint",
    )
    default_threshold: float = Field(0.5, ge=0, lt=1, description="used with selection=default")
    selection_frames: Positive = Field(8, description="frames per validation video that choose checkpoints")
    batch: Positive = Field(8, description="frames per forward pass")


class RunConfig(_Settings):
    """All settings of one run."""

    method: Annotated[str, _one_of(METHODS)] = Field("tcam", description="what is trained: a name of METHODS")
    seed: int = Field(0, ge=0, description="of all randomness; the same seed gives the same result")
    device: str = Field("auto", description="auto, cpu, cuda:0 or mps")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="arithmetic of the network; auto: 16 bits where the device computes in them"
    )
    save_every_s: float = Field(
        30.0,
        ge=0,
        description="seconds between saved states of a training; longer where that would cost more than 2 % of it; "
        "0 saves after every step",
    )
    data: DataSettings = DataSettings()
    input: InputSettings = InputSettings()
    model: ModelSettings = ModelSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    cam: CamSettings = CamSettings()
    localizer: LocalizerSettings = LocalizerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @property
    def has_localizer(self) -> bool:
        """Whether a second stage trains a localizer; otherwise the classifier's CAM is the result."""
        return METHODS[self.method].localizer

    @property
    def keeps_features(self) -> bool:
        """Whether each training frame's features are computed once: a frozen backbone that sees whole frames only."""
        frozen = self.classifier.freeze_backbone and METHODS[self.method].learns == "decoder"
        plain = self.classifier.baseline == "none" and self.cam.method in ("cam", "prior")  # others may need the images
        whole = self.input.resize == self.input.crop
        return self.model.decoder == "levels" and frozen and plain and whole

    @property
    def reads_frames(self) -> bool:
        """Whether training needs the pixels of its frames, and not only their features; see ``keeps_features``."""
        terms = self.localizer
        colours = terms.crf.weight > 0 or (terms.joint.weight > 0 and terms.joint.space == "colour")
        return not self.keeps_features or colours or METHODS[self.method].masks

    @model_validator(mode="after")
    def _fit_cam_and_pooling(self) -> Self:
        reason = CAM_METHODS[self.cam.method].unfit.get(self.model.pooling)
        if reason is not None:
            found = f"found {self.cam.method} and {self.model.pooling}"
            raise ValueError(f"cam.method must fit model.pooling ({reason}; try cam.method=cam): {found}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _take_defaults_of_the_method(cls, values: object) -> object:
        if not isinstance(values, Mapping):
            return values
        if asks_for_acol(values):
            values = _merge(values, ACOL_DEFAULTS)
        method = METHODS.get(str(values.get("method")))
        return _merge(values, {} if method is None else method.defaults)

    @model_validator(mode="after")
    def _give_acol_its_head(self) -> Self:
        baseline, pooling = self.classifier.baseline, self.model.pooling
        if (baseline == "acol") != (pooling == "acol"):
            raise ValueError(
                f"classifier.baseline=acol and model.pooling=acol go together: found {baseline} and {pooling}"
            )
        return self

    @model_validator(mode="after")
    def _leave_settings_to_their_methods(self) -> Self:
        defaults, own = type(self).model_construct(), METHODS[self.method].own
        for name, method in METHODS.items():
            for path in method.own:
                value, default = (reduce(getattr, path.split("."), place) for place in (self, defaults))
                if path not in own and value != default:
                    raise ValueError(f"{path} is of method {name}: found {value} with method {self.method}")
        return self


def _merge(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Merge settings into defaults, group by group."""
    merged = {**defaults, **values}
    for key in defaults.keys() & values.keys():
        if isinstance(values[key], Mapping) and isinstance(defaults[key], Mapping):
            merged[key] = _merge(values[key], defaults[key])
    return merged


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read settings from a YAML file (None: the defaults) and ``a.b=c`` overrides; later ones win.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown (known ones are listed) or a value is invalid.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = read_yaml(path)
    for override in overrides:
        apply_override(values, override)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, RunConfig, path)) from None


def save_config(config: RunConfig, path: Path) -> None:
    """Write every setting, defaults included, as YAML."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
