"""The training step of the classifier: plain cross-entropy, or one of the published baselines.

Where videos have several tags, it is a binary cross-entropy for each tag. The baselines act only during training; the
saved network is a plain classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from pipelines.config.methods import METHODS
from pipelines.config.schema import ClassifierSettings, RunConfig
from pipelines.training.distributed.process_group import BatchShard
from tcam.errors import ConfigError
from tcam.model.adl import AttentionDropout
from tcam.model.heads.acol import Acol
from tcam.model.network import FrameCamNet
from tcam.supervision.cutmix import CutMix
from tcam.supervision.hide_and_seek import HideAndSeek
from tcam.types import LossTerms, VideoIndex
from tcam.video.index import has_several_tags

ClassifierStep = Callable[[Tensor, Tensor, BatchShard, torch.Generator], LossTerms]
"""Computes losses from uint8 frames ``[N, 3, H, W]``, their tags, their place in the batch, and a generator.

The tags are labels, int64 ``[N]``, or 1 for each of several tags and 0 elsewhere, float ``[N, K]``.
"""

_ONE_TAG: Final = ("cutmix", "acol")
"""Baselines that need one tag per frame: they mix two of them, or erase what shows it."""


def classifier_step(settings: ClassifierSettings, network: FrameCamNet) -> ClassifierStep:
    """Return the training step that the settings describe."""
    return _STEPS[settings.baseline](settings, network)


def check_one_tag(config: RunConfig, index: VideoIndex) -> None:
    """Check that baseline and method can learn from videos with several tags, if there are any.

    Raises:
        ConfigError: they cannot.
    """
    if not has_several_tags(index):
        return
    video = next(record.video_id for record in index.of_split("train") if record.also)
    needs = "needs one tag per video, and {video} has several: choose another, or leave all but one tag out"
    baseline = config.classifier.baseline
    if baseline in _ONE_TAG:
        raise ConfigError(f"classifier.baseline={baseline} {needs.format(video=video)}")
    if METHODS[config.method].one_tag:
        raise ConfigError(f"method {config.method} {needs.format(video=video)}")


def check_baseline(settings: ClassifierSettings, network: FrameCamNet) -> None:
    """Check that a baseline works with a network; the state of the network may change.

    Raises:
        ConfigError: it does not.
    """
    if settings.baseline == "adl":
        _attention_dropout(settings).check(network.backbone)


def _plain(_: ClassifierSettings, network: FrameCamNet) -> ClassifierStep:
    def step(frames: Tensor, tags: Tensor, _: BatchShard, __: torch.Generator) -> LossTerms:
        return tag_loss(network(frames).class_logits, tags)

    return step


def _hide_and_seek(settings: ClassifierSettings, network: FrameCamNet) -> ClassifierStep:
    hide = HideAndSeek(settings.hide_and_seek.patches, settings.hide_and_seek.hide)

    def step(frames: Tensor, tags: Tensor, shard: BatchShard, generator: torch.Generator) -> LossTerms:
        hidden = hide(frames, generator, colour=network.backbone.mean, first=shard.first, total=shard.total)
        return tag_loss(network(hidden).class_logits, tags)

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

    def step(frames: Tensor, tags: Tensor, _: BatchShard, generator: torch.Generator) -> LossTerms:
        with dropout.acting_on(network.backbone, generator):
            output = network(frames)
        return tag_loss(output.class_logits, tags)

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


def tag_loss(logits: Tensor, tags: Tensor) -> LossTerms:
    """Return the mean over frames of the cross-entropy of class logits ``[N, K]`` with the tags.

    Args:
        logits: ``[N, K]``.
        tags: int64 ``[N]``, one tag per frame; or 1 for each of several tags and 0 elsewhere, float ``[N, K]``: then
            the binary cross-entropies of the K classes are added.
    """
    if tags.ndim == 1:
        error = functional.cross_entropy(logits, tags)
    else:
        wanted = tags.to(logits.dtype)
        error = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(dim=1).mean()
    return LossTerms({"classes": error}, {"classes": 1.0}, {"classes": len(tags)})


def tags_by_video(index: VideoIndex) -> dict[str, Tensor] | None:
    """Return for every video 1 for each of its tags and 0 elsewhere, float ``[K]``; None where all have one tag."""
    if not has_several_tags(index):
        return None
    found = {}
    for record in index.records:
        found[record.video_id] = torch.zeros(len(index.class_names))
        found[record.video_id][[record.label, *record.also]] = 1
    return found


def _attention_dropout(settings: ClassifierSettings) -> AttentionDropout:
    return AttentionDropout(settings.adl.drop_rate, settings.adl.threshold, settings.adl.levels)


_STEPS: Final[Mapping[str, Callable[[ClassifierSettings, FrameCamNet], ClassifierStep]]] = MappingProxyType(
    {"none": _plain, "hide_and_seek": _hide_and_seek, "cutmix": _cutmix, "adl": _adl, "acol": _acol}
)
"""The training step of each baseline, by its name in the settings."""
