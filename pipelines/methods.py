"""What each localizer method is made of: settings in, clip sampler, label maker and objective out."""

from __future__ import annotations

from colocam.objective import ColocamObjective
from colocam.sampling import SequenceSampler
from pipelines.config import LocalizerSettings, RunConfig
from tcam.supervision.objective import TcamObjective
from tcam.supervision.pseudo_labels import SeedSampler
from tcam.video.clips import FrameSampler


def clip_sampler(config: RunConfig) -> FrameSampler | SequenceSampler:
    """Choose which frames make a clip of the localizer: one for TCAM, a sequence for CoLo-CAM."""
    settings = config.localizer
    if config.method != "colocam":
        return FrameSampler(settings.frame_limit)
    sequence = settings.sequence
    return SequenceSampler(
        sequence.frames,
        style=sequence.style,
        side=sequence.side,
        limit=settings.frame_limit,
        spread=sequence.spread,
    )


def localizer_objective(config: RunConfig) -> TcamObjective | ColocamObjective:
    """Turn settings into the localizer's loss."""
    settings = config.localizer
    base = TcamObjective(
        seed_weight=settings.seeds.weight,
        crf_weight=settings.crf.weight,
        size_weight=settings.size.weight,
        sigma_rgb=settings.crf.sigma_rgb,
        sigma_xy=settings.crf.sigma_xy,
    )
    if config.method != "colocam":
        return base
    joint = settings.joint
    return ColocamObjective(base, joint_weight=joint.weight, joint_sigma_rgb=joint.sigma_rgb, adaptive=joint.adaptive)


def seed_sampler(settings: LocalizerSettings) -> SeedSampler:
    """Turn settings into the label maker."""
    seeds = settings.seeds
    return SeedSampler(
        foreground=seeds.foreground,
        background=seeds.background,
        foreground_fraction=seeds.foreground_fraction,
        background_fraction=seeds.background_fraction,
        kernel=seeds.kernel,
        weighted=seeds.weighted,
        region=seeds.region,
        box_mask=seeds.box_mask,
    )
