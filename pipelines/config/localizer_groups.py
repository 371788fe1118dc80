"""The settings of stage 2, the localizer, group by group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from pipelines.config.groups import (
    Fraction,
    NegativeSettings,
    OptimizerSettings,
    Positive,
    Settings,
    SoftSettings,
    UncertaintySettings,
    Weight,
)

if TYPE_CHECKING:
    from tcam.supervision.pseudo_labels import SeedSampler


class SeedSettings(Settings):
    """Pseudo-labels drawn from CAMs at every step (TCAM section 3)."""

    weight: Weight = Field(1.0, description="weight of the cross-entropy on pseudo-labels")
    foreground: Positive = Field(1, description="foreground pixels drawn per frame")
    background: Positive = Field(1, description="background pixels drawn per frame")
    foreground_fraction: Fraction = Field(0.6, description="share of the region's strongest pixels to draw from")
    background_fraction: Fraction = Field(0.1, description="share of the frame's weakest pixels to draw from")
    kernel: Positive = Field(3, description="side of the square each seed grows to; odd")
    weighted: bool = Field(True, description="draw foreground in proportion to the CAM, not uniformly")
    region: Literal["otsu", "largest", "high_density", "frame"] = Field("otsu", description="where foreground may lie")
    box_mask: bool = Field(False, description="widen the region to its bounding box")
    erosion: Positive = Field(1, description="side of the square that wears the region down at its rim; odd, 1: none")

    @model_validator(mode="after")
    def _centre_the_squares(self) -> Self:
        for name in ("kernel", "erosion"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be odd: found {getattr(self, name)}")
        return self

    def sampler(self) -> SeedSampler:
        """Return the sampler of the pseudo-labels."""
        from tcam.supervision.pseudo_labels import SeedSampler

        return SeedSampler(**self.model_dump(exclude={"weight"}))


class TemporalSettings(Settings):
    """CAM-TMP: neighbours whose CAMs are max-pooled into a frame's own."""

    neighbours: int = Field(1, ge=0, description="frames pooled besides the frame itself; 0: no pooling")
    mode: Literal["before", "after", "before-after"] = "before"
    heat: Weight = Field(0.0, description="exponential overheating of CAMs before pooling; 0 is plain pooling")


class CrfSettings(Settings):
    """Dense CRF energy over position and colour, of each frame.

    ``weight`` multiplies the exact energy. The published 2e-9 multiplied the official filter's energy, which is 0.59
    of the exact one: 1.2e-9 here pulls as the published term does.
    """

    weight: Weight = Field(1.2e-9, description="weight of the term; small, as the energy sums over pairs of pixels")
    sigma_rgb: float = Field(15.0, gt=0, description="reach in colour, in levels of 0 to 255")
    sigma_xy: float = Field(100.0, gt=0, description="reach in space, in pixels")


class SizeSettings(Settings):
    """Foreground and background areas above zero, by an extended log-barrier whose t grows every epoch."""

    weight: Weight = Field(0.01, description="weight of the term")
    initial_t: float = Field(1.0, gt=0, description="t of the log-barrier in the first epoch")
    growth: float = Field(1.01, ge=1, description="what each epoch multiplies t by")
    max_t: float = Field(10.0, gt=0, description="largest t")


class SequenceSettings(Settings):
    """The frames that CoLo-CAM trains on together (its Table 5); a shot of fewer gives those it has."""

    frames: Positive = Field(1, description="frames of a sequence; at most localizer.batch")
    style: Literal["adjacent", "gaussian", "interval"] = Field("adjacent", description="how they are drawn")
    side: Literal["before", "after", "before-after"] = Field("before", description="of the anchor, if adjacent")
    spread: float = Field(1.0, gt=0, allow_inf_nan=False, description="standard deviation in frames, if gaussian")


class JointSettings(Settings):
    """Energy of all frames of a sequence as one image: pixels that look alike get like maps (CoLo-CAM).

    ``space`` says what looks alike: colours, as published, or features of the backbone at 1/16 of the frame, which tell
    object from background better in real videos.

    ``adaptive`` divides the energy of each sequence by its size: ``weight`` then has no scale, and the published 4.0 is
    4.0 here. Otherwise ``weight`` multiplies the exact energy; the official filter gives 0.77 of that with colour only
    (0.59 with position and colour), so that its 2e-9 is 1.5e-9 here. A clip shorter than ``sequence.frames`` takes part
    with the frames it has; one of a single frame adds nothing, as that has no other to agree with.
    """

    weight: Weight = Field(0.0, description="weight of the term; 0: none")
    adaptive: bool = Field(True, description="divide the energy of each sequence by its size")
    sigma_rgb: float = Field(15.0, gt=0, description="reach in colour, in levels of 0 to 255")
    space: Literal["colour", "features"] = Field("colour", description="what the term compares")
    sigma_features: float = Field(
        0.4, gt=0, description="reach in features, the largest component of which has standard deviation 1"
    )
    components: Positive = Field(8, description="principal components of the features of a sequence")

    @property
    def reads_features(self) -> bool:
        """Whether the term needs features of the frames."""
        return self.weight > 0 and self.space == "features"


class LocalizerSettings(OptimizerSettings):
    """Stage 2: the decoder, trained from pseudo-labels.

    ``sequence`` and ``joint`` belong to the method colocam, ``negatives`` to negev, ``uncertainty`` to maxmin.
    """

    lr: float = Field(1e-2, gt=0, description="learning rate at the start")
    rounds: Positive = Field(
        1, description="trainings one after the other, each from the walked maps of the one before (cam.refine=joint)"
    )
    average_rounds: bool = Field(False, description="average each round's weights with those of the round before")
    seeds: SeedSettings = SeedSettings()
    soft: SoftSettings = SoftSettings()
    temporal: TemporalSettings = TemporalSettings()
    crf: CrfSettings = CrfSettings()
    size: SizeSettings = SizeSettings()
    sequence: SequenceSettings = SequenceSettings()
    joint: JointSettings = JointSettings()
    negatives: NegativeSettings = NegativeSettings()
    uncertainty: UncertaintySettings = UncertaintySettings()

    @model_validator(mode="after")
    def _learn_from_something(self) -> Self:
        terms = (self.seeds.weight, self.soft.weight, self.crf.weight, self.size.weight, self.joint.weight)
        if not any((*terms, self.uncertainty.foreground, self.uncertainty.background)):
            raise ValueError("at least one of the terms seeds, soft, crf, size and joint needs a weight above 0")
        return self

    @model_validator(mode="after")
    def _fit_the_sequence(self) -> Self:
        frames, weight, batch = self.sequence.frames, self.joint.weight, self.batch
        if weight and frames < 2:
            raise ValueError(f"joint.weight above 0 needs sequence.frames of 2 or more: found {weight:g} and {frames}")
        if self.frame_choices is not None and frames > self.frame_choices:
            found = f"found {frames} and {self.frame_choices}"
            raise ValueError(f"sequence.frames must be at most frame_choices, the frames of a shot: {found}")
        if frames > batch:
            found = f"found {frames} and {batch}"
            raise ValueError(f"sequence.frames must be at most batch, which counts frames, not sequences: {found}")
        return self
