"""What each localizer method is made of: settings in; clip sampler, label maker, objective and what learns out.

All methods train through the one loop of ``pipelines/training/stages.py``, which knows none of their names.
"""

from __future__ import annotations

from colocam.objective import ColocamObjective
from colocam.sampling import SequenceSampler
from pipelines.config.schema import ClassifierSettings, LocalizerSettings, RunConfig
from tcam.model.backbone import late_parameters
from tcam.model.network import FrameCamNet
from tcam.supervision.max_min import MaxMinObjective, ScoreMasked
from tcam.supervision.negev import NegevObjective
from tcam.supervision.objective import Objective, TcamObjective
from tcam.supervision.pixelcam import PixelCamObjective
from tcam.supervision.pseudo_labels import SeedSampler
from tcam.video.clips import FrameSampler

ParameterGroup = dict[str, object]
"""Of an optimizer: ``params`` and their ``lr``."""


def clip_sampler(config: RunConfig) -> FrameSampler | SequenceSampler:
    """Choose which frames make a clip of the localizer: a sequence for CoLo-CAM, one for all others."""
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


def localizer_objective(config: RunConfig, score_masked: ScoreMasked) -> Objective:
    """Turn settings into the localizer's loss; ``score_masked`` classifies frames that masks hide in part."""
    settings = config.localizer
    joint, uncertainty = settings.joint, settings.uncertainty
    base = TcamObjective(
        seed_weight=settings.seeds.weight,
        crf_weight=settings.crf.weight,
        size_weight=settings.size.weight,
        sigma_rgb=settings.crf.sigma_rgb,
        sigma_xy=settings.crf.sigma_xy,
    )
    objectives: dict[str, Objective] = {
        "colocam": ColocamObjective(
            base, joint_weight=joint.weight, joint_sigma_rgb=joint.sigma_rgb, adaptive=joint.adaptive
        ),
        "pixelcam": PixelCamObjective(base),
        "negev": NegevObjective(base, settings.negatives.weight),
        "maxmin": MaxMinObjective(base, score_masked, uncertainty.foreground, uncertainty.background),
    }
    return objectives.get(config.method, base)


def localizer_groups(network: FrameCamNet, config: RunConfig) -> list[ParameterGroup]:
    """Choose what learns and how fast: the decoder alone, or (PixelCAM) all, the encoder as in the classifier stage."""
    lr = config.localizer.lr
    if config.method == "pixelcam":
        return joint_groups(network, config.classifier, lr=lr)
    network.freeze_classifier()
    return [{"params": list(network.trainable_parameters()), "lr": lr}]


def joint_groups(network: FrameCamNet, settings: ClassifierSettings, *, lr: float) -> list[ParameterGroup]:
    """Freeze what the settings say; the heads and the last level of the backbone then learn faster than the rest."""
    if settings.freeze_batch_norm:
        network.freeze_batch_norm()
    if settings.freeze_backbone:
        network.freeze_backbone()
    late, early = late_parameters(network.backbone)
    heads = [network.head] if network.decoder is None else [network.head, network.decoder]
    fast = [*late, *(parameter for head in heads for parameter in head.parameters())]
    slow = [parameter for parameter in early if parameter.requires_grad]
    groups: list[ParameterGroup] = [
        {"params": [parameter for parameter in fast if parameter.requires_grad], "lr": lr * settings.late_lr_ratio}
    ]
    return [*groups, {"params": slow, "lr": lr}] if slow else groups


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
        erosion=seeds.erosion,
    )
