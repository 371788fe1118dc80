"""A PyTorch network and its CAM method as an engine: uint8 frames in, maps and class probabilities out.

The public class ``tcam.Localizer`` is in ``pipelines/api.py``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from pipelines.config.schema import ModelSettings, RunConfig
from pipelines.models.device import Compute
from pipelines.models.engine import ArrayMaps, FrameMaps, Threads
from pipelines.models.forks import end_threads_before_forks, fork_error, naming_forks
from pipelines.run.memory import keep_freed_memory
from tcam.errors import ConfigError
from tcam.model.backbone import Backbone, Pyramid
from tcam.model.cam.inputs import CamInputs, normalize_cam
from tcam.model.cam.methods import CAM_METHODS, make_cam
from tcam.model.decoder import UnetDecoder
from tcam.model.heads.pooling import HEADS
from tcam.model.imagenet_head import check_imagenet_head, known_classes, read_imagenet_head
from tcam.model.level_head import LevelHead
from tcam.model.network import Decoder, FrameCamNet
from tcam.model.pixel_head import PixelHead
from tcam.model.tag_prior import TagPrior
from tcam.precision import at_least_float32
from tcam.supervision.joint_walk import JointWalk, affinity_features
from tcam.types import FrameOutput
from tcam.video.pixels import Pixels

MapMethod = str
"""A name of ``CAM_METHODS``, or ``decoder``."""

Refine = Callable[[Tensor, Tensor], Tensor]
"""Refines maps ``[N, H, W]`` in 0..1, given their uint8 frames ``[N, 3, H, W]``; ``MeanField`` is one."""


def build_network(
    settings: ModelSettings, num_classes: int, *, decoder: bool, seed: int, several_tags: bool = False
) -> FrameCamNet:
    """Build the frame network with random weights; load pretrained ones into ``.backbone`` afterwards.

    With ``several_tags`` a frame may have several; see ``FrameCamNet``.

    Raises:
        ConfigError: timm has no such model, or the model lacks a feature pyramid or this stride.
    """
    torch.manual_seed(seed)
    backbone = Backbone(
        settings.backbone,
        output_stride=settings.output_stride,
        options=settings.backbone_options,
        levels_used=settings.levels_used,
    )
    options = {"background": True} if settings.background else {}
    head = HEADS[settings.pooling](backbone.last_channels, num_classes, **options)
    maps = _build_decoder(settings, backbone, num_classes if several_tags else 1) if decoder else None
    network = FrameCamNet(backbone, head, maps, several_tags=several_tags)
    return network.to(memory_format=torch.channels_last)


def _build_decoder(settings: ModelSettings, backbone: Backbone, num_tags: int) -> Decoder:
    if settings.decoder == "pixels":
        return PixelHead(backbone.last_channels, num_tags=num_tags)
    if settings.decoder == "levels":
        reductions = backbone.level_reductions
        return LevelHead(backbone.level_channels, backbone.last_channels, reductions, num_tags=num_tags)
    return UnetDecoder(backbone.level_channels, channels=settings.decoder_channels, num_tags=num_tags)


def build_classifier(config: RunConfig, num_classes: int, *, seed: int = 0, several_tags: bool = False) -> FrameCamNet:
    """Build the network of the classifier stage with random weights; with ``cam.method=prior`` its prior is empty.

    Raises:
        ConfigError: as for ``build_network``.
    """
    network = build_network(config.model, num_classes, decoder=False, seed=seed, several_tags=several_tags)
    if CAM_METHODS[config.cam.method].of_imagenet:
        backbone = network.backbone
        network.prior = TagPrior(backbone.last_channels, num_classes, known=known_classes(backbone))
    return network


def check_fit(config: RunConfig, network: FrameCamNet) -> None:
    """Check that the CAM method, the input size and what is to be trained fit a network.

    Raises:
        ConfigError: they do not.
        MissingPartError: the CAM method needs the ImageNet classifier, and the weights do not have it.
    """
    method, backbone, crop = config.cam.method, network.backbone, config.input.crop
    if CAM_METHODS[method].of_attention and not backbone.attends:
        raise ConfigError(
            f"cam.method={method} looks at the attention of a class token: model '{backbone.name}' has none; take a "
            "vision transformer such as deit_small_patch16_224, or another cam.method"
        )
    if CAM_METHODS[method].of_imagenet:
        _check_imagenet(config, backbone)
    if config.classifier.freeze_backbone and backbone.has_new_stage:
        raise ConfigError(
            f"classifier.freeze_backbone=true would leave the new last stage of '{backbone.name}' at stride 8 random: "
            "set it to false, or model.output_stride to null"
        )
    if backbone.patch is not None and crop % backbone.patch:
        raise ConfigError(
            f"input.crop must be a multiple of {backbone.patch}, the patch of model '{backbone.name}', got {crop}; "
            f"set it to {max(crop // backbone.patch, 1) * backbone.patch}"
        )


def _check_imagenet(config: RunConfig, backbone: Backbone) -> None:
    """Check that the ImageNet classifier of the weights can be used and stays valid; see ``check_fit``."""
    method, weights = config.cam.method, config.model.weights
    if weights == "random":
        raise ConfigError(
            f"cam.method={method} reads the ImageNet classifier of pretrained weights: expected --weights imagenet or "
            "a weight file, found random; give weights, or choose another cam.method, such as layercam"
        )
    if not config.classifier.freeze_backbone:
        raise ConfigError(
            f"cam.method={method} expects classifier.freeze_backbone=true, found false: the ImageNet classifier fits "
            "only the backbone it was trained with; set it, or choose another cam.method, such as layercam"
        )
    check_imagenet_head(backbone)
    read_imagenet_head(backbone, weights)


@dataclass(frozen=True, slots=True)
class NetworkLocalizer:
    """A frame network and the way its maps are made.

    ``refine`` goes over each map, given its frame, at the end. With a ``walk``, which makes the maps of several frames
    agree (``pipelines/models/refinement/walked.py``), it also returns the features for it.
    """

    network: FrameCamNet
    method: MapMethod
    compute: Compute
    refine: Refine | None = None
    walk: JointWalk | None = None

    @property
    def threads(self) -> Threads:
        """How it uses processors: decoders keep no state between calls, CAM methods may."""
        if self.compute.device.type != "cpu":
            return "all"
        return "each" if self.method == "decoder" else "one"

    @torch.inference_mode()
    def __call__(self, frames: Tensor, labels: Tensor | None = None) -> FrameMaps[Tensor]:
        """Return the maps of uint8 frames ``[N, 3, H, W]``; ``labels`` ``[N]`` are the classes to map.

        A decoder has one map for all classes, unless a frame may have several tags.
        """
        frames = self.to_device(frames)
        if self.walk is not None:
            return self.map_features(self.pyramid(frames), frames, labels)
        with self.compute.autocast():  # a compiled network compiles this call only
            return self._maps(self.network(frames, self._own_maps(labels)), frames, labels)

    def to_device(self, frames: Tensor) -> Tensor:
        """Return frames ``[N, 3, H, W]`` on the localizer's device."""
        if self.compute.device.type == "cuda" and frames.device.type == "cpu":
            frames = frames.pin_memory()  # only from there is the copy beside other work
        return frames.to(self.compute.device, non_blocking=True)

    @torch.inference_mode()
    def pyramid(self, frames: Tensor) -> Pyramid:
        """Return the features of uint8 frames ``[N, 3, H, W]`` that are on the device."""
        with self.compute.autocast():
            return self.network.pyramid(frames)

    @torch.inference_mode()
    def map_features(self, pyramid: Pyramid, frames: Tensor, labels: Tensor | None = None) -> FrameMaps[Tensor]:
        """Do the same with the features of the frames at hand; frames are on the device."""
        size = (frames.shape[2], frames.shape[3])
        with self.compute.autocast():
            output = self.network.output(pyramid, size, self._own_maps(labels))
        found = self._maps(output, frames, labels)
        if self.walk is None:
            return found
        return replace(found, features=affinity_features(pyramid.levels, size).float())

    def _own_maps(self, labels: Tensor | None) -> Tensor | None:
        """Return the classes for the network; None where it has one map for all, so that it is compiled once."""
        return labels.to(self.compute.device) if labels is not None and self.network.several_tags else None

    def _maps(self, output: FrameOutput, frames: Tensor, labels: Tensor | None) -> FrameMaps[Tensor]:
        probabilities = self.network.probabilities(output.class_logits)
        chosen = probabilities.argmax(dim=1) if labels is None else labels.to(self.compute.device)
        if output.map_logits is not None and self.method == "decoder":
            background, foreground = output.map_logits.unbind(1)
            maps = (foreground - background).sigmoid_()  # their softmax, at a third of its cost
        else:
            coarse = class_activation(self, frames, output=output, labels=chosen)
            size = (frames.shape[2], frames.shape[3])
            maps = functional.interpolate(coarse[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
        maps = maps if self.refine is None else self.refine(maps, frames)
        return FrameMaps(maps, probabilities, chosen)

    def find(self, frames: Pixels, label: int | None) -> ArrayMaps:
        """Do the same with arrays, for one class or for the most probable ones; see ``Engine``.

        Raises:
            ForkError: PyTorch cannot work in this process because of what its parent had done before the fork.
        """
        labels = None if label is None else torch.full((len(frames),), label)
        with naming_forks():
            found = self(torch.from_numpy(frames), labels)
        return FrameMaps(*(part.cpu().numpy() for part in (found.maps, found.probabilities, found.labels)))

    def pack(self) -> PackedLocalizer:
        """Return a form of it that can be pickled; weights on the CPU are shared, not copied."""
        return PackedLocalizer.pack(self)

    def after_fork(self) -> NetworkLocalizer:
        """Return itself: on a CPU it works in a forked process as well.

        Raises:
            ForkError: it is on a GPU.
        """
        if self.compute.device.type != "cpu":
            raise fork_error("that had used a GPU")
        return self


@dataclass(frozen=True, slots=True)
class PackedLocalizer:
    """A localizer that can be sent to another process; its network is on the CPU until it is unpacked there."""

    network: FrameCamNet
    method: MapMethod
    compute: Compute
    refine: Refine | None = None
    walk: JointWalk | None = None

    @classmethod
    def pack(cls, localizer: NetworkLocalizer) -> PackedLocalizer:
        """Return a localizer in a form that can be pickled; weights on the CPU are shared, not copied."""
        network = localizer.network
        if localizer.compute.device.type != "cpu":
            network = copy.deepcopy(network).cpu()
        return cls(network, localizer.method, localizer.compute, localizer.refine, localizer.walk)

    @property
    def device_type(self) -> str:
        """The type of the device it is unpacked to."""
        return self.compute.device.type

    def unpack(self) -> NetworkLocalizer:
        """Move the network to its device.

        On the CPU its decoder is fused, and the process starts to keep the memory it frees and to end its threads
        before it forks.
        """
        network = self.network.to(self.compute.device).eval()
        if self.device_type == "cpu":
            keep_freed_memory()
            end_threads_before_forks()
            network = network.fused()
        return NetworkLocalizer(network, self.method, self.compute, self.refine, self.walk)


def class_activation(localizer: NetworkLocalizer, frames: Tensor, *, output: FrameOutput, labels: Tensor) -> Tensor:
    """Return the normalised CAMs ``[N, h, w]`` in 0..1 of frames, at feature resolution.

    Args:
        localizer: the network and the name of its CAM method.
        frames: uint8 ``[N, 3, H, W]``, on its device.
        output: output of the network for these frames.
        labels: int64 ``[N]``, the class to map in each frame.
    """
    network = localizer.network

    def look(images: Tensor) -> Tensor:
        with localizer.compute.autocast():
            last: Tensor = network.backbone(images).last
        return at_least_float32(last)

    inputs = CamInputs(
        at_least_float32(output.features),
        labels,
        score=network.head,
        head=network.head,
        images=lambda: network.images(frames),
        look=look,
        generator=torch.Generator().manual_seed(0),  # of each batch: a map does not depend on those made before it
        attention=output.attention,
        prior=network.prior,
    )
    return normalize_cam(make_cam(localizer.method, inputs))
