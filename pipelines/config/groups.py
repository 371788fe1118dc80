"""Building blocks of the settings: value ranges, the optimizer, and the classifier's baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]


class Settings(BaseModel):
    """A group of settings: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class OptimizerSettings(Settings):
    """The optimizer; its learning rate falls by ``lr_gamma`` every ``lr_step`` epochs."""

    epochs: Positive = Field(100, description="passes over the training shots")
    batch: Positive = Field(32, description="frames per step, of all workers together")
    frames_per_shot: Positive = Field(
        1, description="random frames (sequences, with colocam) drawn from each shot per epoch"
    )
    frame_limit: Fraction = Field(0.6, description="central share of a shot that frames are drawn from")
    frame_choices: Positive | None = Field(
        None, description="draw from this many frames of a shot, evenly spread (with frame_limit 1); null: from all"
    )
    balance_classes: bool = Field(False, description="repeat shots of rare classes so that classes are seen equally")
    lr: float = Field(1e-3, gt=0, description="learning rate at the start")
    lr_step: Positive = Field(15, description="epochs between two drops of the learning rate")
    lr_gamma: Fraction = Field(0.9, description="what a drop multiplies the learning rate by")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="SGD with Nesterov momentum, or AdamW")
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum of SGD, first beta of AdamW")
    weight_decay: Weight = Field(1e-4, description="L2 penalty on the weights; decoupled with AdamW")
    workers: int = Field(0, ge=0, description="decoding processes; 0 decodes in the training process")

    @model_validator(mode="after")
    def _spread_over_the_whole_shot(self) -> Self:
        if self.frame_choices is not None and self.frame_limit < 1:  # few frames, of which the limit would leave fewer
            found = f"found {self.frame_choices} and {self.frame_limit:g}"
            raise ValueError(f"frame_choices are spread over the whole shot and need frame_limit=1: {found}")
        return self


class SoftSettings(Settings):
    """Soft targets: the decoder learns the whole CAM, instead of a few pixels drawn from it.

    Use it with CAMs that already cover the object, such as those of ``cam.refine=joint``.
    """

    weight: Weight = Field(0.0, description="weight of the cross-entropy with the CAM at every pixel; 0: none")


class NegativeSettings(Settings):
    """Frames known to hold no object (NEGEV): background at every pixel."""

    weight: Weight = Field(0.0, description="weight of the cross-entropy on frames without any object")


class UncertaintySettings(Settings):
    """Max-min uncertainty: what the frozen classifier sees on each side of the map."""

    foreground: Weight = Field(0.0, description="weight of the cross-entropy of the foreground, which wants the tag")
    background: Weight = Field(0.0, description="weight of what the background still tells, which wants nothing")


class HideAndSeekSettings(Settings):
    """Frames with hidden patches (Hide-and-Seek)."""

    patches: tuple[Positive, ...] = Field((16, 32, 44, 56), min_length=1, description="sides drawn from, in pixels")
    hide: Fraction = Field(0.5, description="chance of each patch")


class CutMixSettings(Settings):
    """Frames with a window of another (CutMix)."""

    probability: Fraction = Field(1.0, description="of mixing a batch")


class AdlSettings(Settings):
    """Feature maps without their most attended region, or weighed by attention (ADL)."""

    drop_rate: Fraction = Field(0.75, description="chance of taking the region out")
    threshold: Fraction = Field(0.8, description="where the region begins, as a share of the attention's maximum")
    levels: Positive = Field(3, description="of the feature pyramid, from the last, that it acts on")


ACOL_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "classifier": {"baseline": "acol"},
    "model": {"pooling": "acol"},
    "cam": {"method": "cam"},
}
"""Defaults of all three, if the baseline or the pooling is acol."""


def asks_for_acol(values: Mapping[str, Any]) -> bool:
    """Whether unchecked settings name ACoL, as a baseline or as a class head."""
    named = (("classifier", "baseline"), ("model", "pooling"))
    groups = ((values.get(group), name) for group, name in named)
    return any(isinstance(group, Mapping) and group.get(name) == "acol" for group, name in groups)
