"""The localizer methods with their defaults, clips and losses. ``METHODS`` is the one table of them.

The losses are imported where they are built: the command line reads this table and must not load PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from pipelines.config.localizer_groups import LocalizerSettings

if TYPE_CHECKING:
    from tcam.supervision.max_min import ScoreMasked
    from tcam.supervision.objective import Objective, TcamObjective
    from tcam.video.clips import ClipSampler


def _single_frames(settings: LocalizerSettings) -> ClipSampler:
    from tcam.video.clips import FrameSampler

    return FrameSampler(settings.frame_limit, settings.frame_choices)


def _sequences(settings: LocalizerSettings) -> ClipSampler:
    from colocam.sampling import SequenceSampler

    chosen = settings.sequence
    return SequenceSampler(
        chosen.frames,
        style=chosen.style,
        side=chosen.side,
        limit=settings.frame_limit,
        spread=chosen.spread,
        most=settings.frame_choices,
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
    from colocam.objective import ColocamObjective, FeatureSpace

    joint = settings.joint
    return ColocamObjective(
        _tcam(settings),
        joint_weight=joint.weight,
        joint_sigma_rgb=joint.sigma_rgb,
        adaptive=joint.adaptive,
        features=FeatureSpace(joint.sigma_features, joint.components) if joint.reads_features else None,
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
        masks: whether its loss shows masked frames to the classifier.
        one_tag: whether its loss needs videos with one tag each.
        defaults: its published settings, where they differ from those of TCAM. Files and ``--set`` win over them.
        own: settings of this method only, such as ``localizer.joint.weight``. Other methods refuse them.
    """

    summary: str
    localizer: bool = True
    clips: Callable[[LocalizerSettings], ClipSampler] = _single_frames
    objective: Callable[[LocalizerSettings, ScoreMasked], Objective] = _tcam
    learns: Literal["decoder", "all"] = "decoder"
    negatives: bool = False
    masks: bool = False
    one_tag: bool = False
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
        own=("localizer.sequence.frames", "localizer.joint.weight", "localizer.joint.space"),
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
        one_tag=True,
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
        one_tag=True,
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
        masks=True,
        one_tag=True,
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
