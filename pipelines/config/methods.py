"""The localizer methods with their settings, defaults, clips and losses. ``METHODS`` is the one table of them.

The losses are imported where they are built: the command line reads this table and must not load PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Self

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
    from tcam.supervision.max_min import ScoreMasked
    from tcam.supervision.objective import Objective, TcamObjective
    from tcam.supervision.pseudo_labels import SeedSampler
    from tcam.video.clips import ClipSampler


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
    """Dense CRF energy over colour only, of all frames of a sequence as one image (CoLo-CAM).

    ``adaptive`` divides the energy of each sequence by its size: ``weight`` then has no scale, and the published 4.0 is
    4.0 here. Otherwise ``weight`` multiplies the exact energy; the official filter gives 0.77 of that with colour only
    (0.59 with position and colour), so that its 2e-9 is 1.5e-9 here. A clip shorter than ``sequence.frames`` takes part
    with the frames it has; one of a single frame adds nothing, as that has no other to agree with.
    """

    weight: Weight = Field(0.0, description="weight of the term; 0: none")
    adaptive: bool = Field(True, description="divide the energy of each sequence by its size")
    sigma_rgb: float = Field(15.0, gt=0, description="reach in colour, in levels of 0 to 255")


class LocalizerSettings(OptimizerSettings):
    """Stage 2: the decoder, trained from pseudo-labels.

    ``sequence`` and ``joint`` belong to the method colocam, ``negatives`` to negev, ``uncertainty`` to maxmin.
    """

    lr: float = Field(1e-2, gt=0, description="learning rate at the start")
    rounds: Positive = Field(
        1, description="trainings one after the other, each from the walked maps of the one before (cam.refine=joint)"
    )
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
        if frames > 1 and self.frame_choices is not None:
            found = f"found {self.frame_choices} with sequences of {frames}"
            raise ValueError(f"frame_choices is for single frames: {found}")
        if frames > batch:
            found = f"found {frames} and {batch}"
            raise ValueError(f"sequence.frames must be at most batch, which counts frames, not sequences: {found}")
        return self


def _single_frames(settings: LocalizerSettings) -> ClipSampler:
    from tcam.video.clips import FrameSampler

    return FrameSampler(settings.frame_limit, settings.frame_choices)


def _sequences(settings: LocalizerSettings) -> ClipSampler:
    from colocam.sampling import SequenceSampler

    chosen = settings.sequence
    return SequenceSampler(
        chosen.frames, style=chosen.style, side=chosen.side, limit=settings.frame_limit, spread=chosen.spread
    )


def _tcam(settings: LocalizerSettings, _: ScoreMasked | None = None) -> TcamObjective:
    from tcam.supervision.objective import TcamObjective

    return TcamObjective(
        seed_weight=settings.seeds.weight,
        soft_weight=settings.soft.weight,
        crf_weight=settings.crf.weight,
        size_weight=settings.size.weight,
        sigma_rgb=settings.crf.sigma_rgb,
        sigma_xy=settings.crf.sigma_xy,
    )


def _colocam(settings: LocalizerSettings, _: ScoreMasked) -> Objective:
    from colocam.objective import ColocamObjective

    joint = settings.joint
    return ColocamObjective(
        _tcam(settings), joint_weight=joint.weight, joint_sigma_rgb=joint.sigma_rgb, adaptive=joint.adaptive
    )


def _pixelcam(settings: LocalizerSettings, _: ScoreMasked) -> Objective:
    from tcam.supervision.pixelcam import PixelCamObjective

    return PixelCamObjective(_tcam(settings))


def _negev(settings: LocalizerSettings, _: ScoreMasked) -> Objective:
    from tcam.supervision.negev import NegevObjective

    return NegevObjective(_tcam(settings), settings.negatives.weight)


def _maxmin(settings: LocalizerSettings, score_masked: ScoreMasked) -> Objective:
    from tcam.supervision.max_min import MaxMinObjective

    return MaxMinObjective(
        _tcam(settings), score_masked, settings.uncertainty.foreground, settings.uncertainty.background
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A row of ``METHODS``.

    Attributes:
        summary: what it trains, for ``tcam train --help``.
        localizer: whether it trains the second stage; without one, the CAM of the classifier is the result.
        clips: returns the sampler of a training clip's frames, given the settings.
        objective: returns the loss, given the settings and a function for the class logits of masked frames.
        learns: the decoder only, or the whole network, with the encoder as in the classifier stage.
        negatives: whether it needs frames known to hold no object.
        defaults: its published settings, where they differ from those of TCAM. Files and ``--set`` win over them.
        own: settings of this method only, such as ``localizer.joint.weight``. Other methods refuse them.
    """

    summary: str
    localizer: bool = True
    clips: Callable[[LocalizerSettings], ClipSampler] = _single_frames
    objective: Callable[[LocalizerSettings, ScoreMasked], Objective] = _tcam
    learns: Literal["decoder", "all"] = "decoder"
    negatives: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    own: tuple[str, ...] = ()


_FCAM: Final[Mapping[str, Any]] = {
    "seeds": {"foreground_fraction": 1.0, "weighted": False, "erosion": 11},
    "temporal": {"neighbours": 0},
}
"""Seeds of F-CAM (arXiv 2109.07069): drawn uniformly from a whole eroded region of a single frame."""

METHODS: Final[dict[str, Method]] = {
    "cam": Method(summary="the classifier and its CAM only", localizer=False),
    "tcam": Method(summary="a decoder trained frame by frame"),
    "colocam": Method(
        summary="a decoder trained on sequences of frames",
        clips=_sequences,
        objective=_colocam,
        own=("localizer.sequence.frames", "localizer.joint.weight"),
        defaults={
            "localizer": {
                "epochs": 10,
                "lr_step": 5,
                "seeds": {
                    "foreground": 1000,
                    "background": 1000,
                    "foreground_fraction": 0.7,
                    "background_fraction": 0.1,
                    "region": "largest",
                    "box_mask": True,
                },
                "temporal": {"neighbours": 0},
                "sequence": {"frames": 4, "style": "adjacent", "side": "before"},
                "joint": {"weight": 4.0, "adaptive": True},
            }
        },
    ),
    "fcam": Method(summary="F-CAM, seeds of single frames", defaults={"localizer": {**_FCAM, "size": {"weight": 0.1}}}),
    "pixelcam": Method(
        summary="a pixel classifier that trains the encoder too",
        objective=_pixelcam,
        learns="all",
        defaults={
            "model": {"decoder": "pixels"},
            "localizer": {
                "lr": 1e-3,
                "seeds": {
                    "foreground": 5,
                    "background": 5,
                    "foreground_fraction": 1.0,
                    "background_fraction": 0.2,
                    "kernel": 1,
                    "region": "frame",
                },
                "temporal": {"neighbours": 0},
                "crf": {"weight": 0.0},
                "size": {"weight": 0.0},
            },
        },
    ),
    "negev": Method(
        summary="learns from frames without any object too",
        objective=_negev,
        negatives=True,
        own=("data.background", "localizer.negatives.weight"),
        defaults={
            "localizer": {
                **_FCAM,
                "crf": {"weight": 0.0},
                "size": {"weight": 0.0},
                "negatives": {"weight": 1.0},
            }
        },
    ),
    "maxmin": Method(
        summary="masks that the frozen classifier is sure about",
        objective=_maxmin,
        own=("localizer.uncertainty.foreground", "localizer.uncertainty.background"),
        defaults={  # the weights of the uncertainty are ours, not the paper's
            "localizer": {
                "seeds": {"weight": 0.0},
                "temporal": {"neighbours": 0},
                "crf": {"weight": 0.0},
                "uncertainty": {"foreground": 1.0, "background": 1.0},
            }
        },
    ),
}
"""By name, in the order of ``tcam train --help``. Your own file may add a row: see docs/extending.md."""
