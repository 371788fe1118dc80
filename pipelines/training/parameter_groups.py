"""The parameter groups of each stage's optimizer: what is trained, and at which learning rate."""

from __future__ import annotations

from pipelines.config.methods import METHODS
from pipelines.config.schema import ClassifierSettings, RunConfig
from tcam.model.backbone import late_parameters
from tcam.model.network import FrameCamNet

ParameterGroup = dict[str, object]
"""``params`` and their ``lr``."""


def localizer_groups(network: FrameCamNet, config: RunConfig) -> list[ParameterGroup]:
    """Return the groups of the localizer stage: the decoder, or the whole network where the method learns ``all``."""
    lr = config.localizer.lr
    if METHODS[config.method].learns == "all":
        return joint_groups(network, config.classifier, lr=lr)
    network.freeze_classifier()
    return [{"params": list(network.trainable_parameters()), "lr": lr}]


def joint_groups(network: FrameCamNet, settings: ClassifierSettings, *, lr: float) -> list[ParameterGroup]:
    """Freeze what the settings say; the heads and the last level of the backbone learn faster than the rest."""
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
