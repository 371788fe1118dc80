"""The training step of the classifier: plain cross-entropy, or one of the published baselines.

The baselines act only during training; the saved network is a plain classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from pipelines.config.schema import ClassifierSettings
from pipelines.training.distributed.process_group import BatchShard
from tcam.model.adl import AttentionDropout
from tcam.model.heads.acol import Acol
from tcam.model.network import FrameCamNet
from tcam.supervision.cutmix import CutMix
from tcam.supervision.hide_and_seek import HideAndSeek
from tcam.types import LossTerms

ClassifierStep = Callable[[Tensor, Tensor, BatchShard, torch.Generator], LossTerms]
"""Computes losses from uint8 frames ``[N, 3, H, W]``, labels ``[N]``, their place in the batch, and a generator."""


def classifier_step(settings: ClassifierSettings, network: FrameCamNet) -> ClassifierStep:
    """Return the training step that the settings describe."""
    return _STEPS[settings.baseline](settings, network)


def check_baseline(settings: ClassifierSettings, network: FrameCamNet) -> None:
    """Check that a baseline works with a network; the state of the network may change.

    Raises:
        ConfigError: it does not.
    """
    if settings.baseline == "adl":
        _attention_dropout(settings).check(network.backbone)


def _plain(_: ClassifierSettings, network: FrameCamNet) -> ClassifierStep:
    def step(frames: Tensor, labels: Tensor, _: BatchShard, __: torch.Generator) -> LossTerms:
        return tag_loss(network(frames).class_logits, labels)

    return step


def _hide_and_seek(settings: ClassifierSettings, network: FrameCamNet) -> ClassifierStep:
    hide = HideAndSeek(settings.hide_and_seek.patches, settings.hide_and_seek.hide)

    def step(frames: Tensor, labels: Tensor, shard: BatchShard, generator: torch.Generator) -> LossTerms:
        hidden = hide(frames, generator, colour=network.backbone.mean, first=shard.first, total=shard.total)
        return tag_loss(network(hidden).class_logits, labels)

    return step


def _cutmix(settings: ClassifierSettings, network: FrameCamNet) -> ClassifierStep:
    mix = CutMix(settings.cutmix.probability)

    def step(frames: Tensor, labels: Tensor, shard: BatchShard, generator: torch.Generator) -> LossTerms:
        mixed = mix(frames, labels, generator, first=shard.first, total=shard.total)
        error = mixed.cross_entropy(network(mixed.frames).class_logits)
        return LossTerms({"classes": error}, {"classes": 1.0}, {"classes": len(labels)})

    return step


def _adl(settings: ClassifierSettings, network: FrameCamNet) -> ClassifierStep:
    dropout = _attention_dropout(settings)

    def step(frames: Tensor, labels: Tensor, _: BatchShard, generator: torch.Generator) -> LossTerms:
        with dropout.acting_on(network.backbone, generator):
            output = network(frames)
        return tag_loss(output.class_logits, labels)

    return step


def _acol(_: ClassifierSettings, network: FrameCamNet) -> ClassifierStep:
    head = network.head
    if not isinstance(head, Acol):
        raise ValueError(f"baseline acol needs the class head acol, got {type(head).__name__}")

    def step(frames: Tensor, labels: Tensor, _: BatchShard, __: torch.Generator) -> LossTerms:
        logits, others = head.both_logits(network.pyramid(frames).last, labels)
        scores = {"classes": logits, "erased": others}
        terms = {name: functional.cross_entropy(values, labels) for name, values in scores.items()}
        return LossTerms(terms, dict.fromkeys(terms, 1.0), dict.fromkeys(terms, len(labels)))

    return step


def tag_loss(logits: Tensor, labels: Tensor) -> LossTerms:
    """Return the cross-entropy of class logits ``[N, K]`` with the tags ``[N]``."""
    error = functional.cross_entropy(logits, labels)
    return LossTerms({"classes": error}, {"classes": 1.0}, {"classes": len(labels)})


def _attention_dropout(settings: ClassifierSettings) -> AttentionDropout:
    return AttentionDropout(settings.adl.drop_rate, settings.adl.threshold, settings.adl.levels)


_STEPS: Final[Mapping[str, Callable[[ClassifierSettings, FrameCamNet], ClassifierStep]]] = MappingProxyType(
    {"none": _plain, "hide_and_seek": _hide_and_seek, "cutmix": _cutmix, "adl": _adl, "acol": _acol}
)
"""The training step of each baseline, by its name in the settings."""
