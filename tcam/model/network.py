"""The frame network: uint8 frames in, class scores, features and localization maps out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Self

import torch
from torch import Tensor, nn

from tcam.model.backbone import Backbone, Pyramid
from tcam.model.decoder import UnetDecoder
from tcam.model.fused_decoder import FusedDecoder
from tcam.model.heads.pooling import ClassHead
from tcam.model.level_head import LevelHead
from tcam.model.pixel_head import PixelHead
from tcam.model.tag_prior import TagPrior
from tcam.precision import at_least_float32
from tcam.types import FrameOutput, Size

Decoder = UnetDecoder | FusedDecoder | LevelHead | PixelHead


class FrameCamNet(nn.Module):
    """Backbone, class head and (for the localizer) decoder over single frames (TCAM, arXiv:2208.14542).

    The decoder is a U-Net over all levels (fused: for inference only), a small head on two levels and the input of the
    class head, or a pixel classifier on that input alone. ``prior`` holds the ImageNet classifier that
    ``cam.method=prior`` reads; other methods have none. With ``several_tags`` a frame may have several: each has a
    probability of its own (sigmoid instead of softmax), and the decoder makes maps for each.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        backbone: Backbone,
        head: ClassHead,
        decoder: Decoder | None,
        prior: TagPrior | None = None,
        *,
        several_tags: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.decoder = decoder
        self.prior = prior
        self.several_tags = several_tags
        self._backbone_frozen = False
        self._head_frozen = False
        self._batch_norm_frozen = False
        mean, std = torch.tensor(backbone.mean), torch.tensor(backbone.std)
        # Not saved: they belong to the backbone's name, and a weight file of another one must not carry them over.
        self.register_buffer("mean", (255 * mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", (1 / (255 * std)).view(1, 3, 1, 1), persistent=False)

    def forward(self, frames: Tensor, labels: Tensor | None = None) -> FrameOutput:
        """Return the output for uint8 RGB frames ``[N, 3, H, W]``; logits are float32 even under autocast.

        ``labels``, int64 ``[N]``, are the tags to map where each has maps of its own; -1 or None: the most probable.

        Raises:
            ValueError: another shape or dtype.
        """
        return self.output(self.pyramid(frames), (frames.shape[2], frames.shape[3]), labels)

    def output(self, pyramid: Pyramid, size: Size, labels: Tensor | None = None) -> FrameOutput:
        """Return the output for the features of frames of this (height, width)."""
        class_logits = at_least_float32(self.head(pyramid.last))
        if self.decoder is None:
            return FrameOutput(class_logits, pyramid.last, None, pyramid.attention)
        if self.several_tags:
            best = self.probabilities(class_logits).argmax(dim=1)
            labels = best if labels is None else torch.where(labels < 0, best, labels)
        map_logits = at_least_float32(self.decoder(_read_levels(self.decoder, pyramid), size, labels))
        return FrameOutput(class_logits, pyramid.last, map_logits, pyramid.attention)

    def probabilities(self, class_logits: Tensor) -> Tensor:
        """Return the probability of each class, ``[N, K]``: they add up to 1, or are independent of each other."""
        return class_logits.sigmoid() if self.several_tags else class_logits.softmax(dim=1)

    def pyramid(self, frames: Tensor) -> Pyramid:
        """Return the backbone's features of uint8 RGB frames ``[N, 3, H, W]``; without a graph where it is frozen.

        Raises:
            ValueError: another shape or dtype.
        """
        images = self.images(frames)
        with torch.no_grad() if self._backbone_frozen else nullcontext():
            pyramid: Pyramid = self.backbone(images)
        return pyramid

    def score_masked(self, frames: Tensor, masks: Tensor) -> Tensor:
        """Return the class logits ``[N, K]`` of masked frames; hidden pixels have the mean colour.

        Args:
            frames: uint8 ``[N, 3, H, W]``, RGB.
            masks: ``[N, H, W]``, 1 shows a pixel and 0 hides it; gradients reach them even through frozen weights.

        Raises:
            ValueError: another shape or dtype.
        """
        if masks.shape != (len(frames), *frames.shape[2:]):
            raise ValueError(f"masks must be [N, H, W] of frames {list(frames.shape)}, got {list(masks.shape)}")
        logits: Tensor = self.head(self.backbone(self.images(frames) * masks[:, None]).last)
        return at_least_float32(logits)

    def images(self, frames: Tensor) -> Tensor:
        """Return uint8 RGB frames ``[N, 3, H, W]`` normalised for the backbone.

        Raises:
            ValueError: another shape or dtype.
        """
        if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8:
            raise ValueError(f"frames must be uint8 [N, 3, H, W], got {frames.dtype} {list(frames.shape)}")
        pixels = frames.to(self.mean.dtype, memory_format=torch.channels_last)
        return (pixels - self.mean) * self.scale

    def fused(self) -> FrameCamNet:
        """Return the network with its U-Net decoder fused (see ``fused_decoder``), for inference on a CPU.

        Backbone and head are shared with this network.

        Raises:
            ValueError: in training mode.
        """
        if not isinstance(self.decoder, UnetDecoder):
            return self
        decoder = FusedDecoder(self.decoder)
        return FrameCamNet(self.backbone, self.head, decoder, self.prior, several_tags=self.several_tags).eval()

    def freeze_classifier(self) -> None:
        """Freeze backbone and head permanently, with their BatchNorm statistics: only the decoder is trained."""
        self.freeze_backbone()
        self._head_frozen = True
        self.head.requires_grad_(False)
        self.train(self.training)

    def freeze_backbone(self) -> None:
        """Freeze the backbone permanently, with its BatchNorm statistics: only head and decoder are trained."""
        self._backbone_frozen = True
        self.backbone.requires_grad_(False)
        self.train(self.training)

    def freeze_batch_norm(self) -> None:
        """Freeze statistics and affine weights of the backbone's BatchNorm, which small batches would spoil."""
        self._batch_norm_frozen = True
        for module in self._batch_norms():
            module.requires_grad_(False)
        self.train(self.training)

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters that are trained."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        if self._backbone_frozen:
            self.backbone.eval()
        if self._head_frozen:
            self.head.eval()
        if self._batch_norm_frozen:
            for module in self._batch_norms():
                module.eval()
        return self

    def _batch_norms(self) -> Iterator[nn.Module]:
        return (module for module in self.backbone.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))


def _read_levels(decoder: Decoder, pyramid: Pyramid) -> Sequence[Tensor]:
    """Return the features that a kind of decoder reads."""
    if isinstance(decoder, PixelHead):
        return (pyramid.last,)
    return (*pyramid.levels, pyramid.last) if isinstance(decoder, LevelHead) else pyramid.levels
