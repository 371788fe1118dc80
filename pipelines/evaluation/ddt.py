"""The unsupervised baseline of an evaluation: deep descriptor transformation (DDT) on the classifier's features."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from pipelines.evaluation.sampling import spread_out
from pipelines.models.localizer import NetworkLocalizer
from tcam.boxes.boxes import scale_boxes
from tcam.boxes.ddt import Component, component_boxes, component_maps, principal_component
from tcam.types import Size, VideoRecord
from tcam.video.dataset import stream_original

DDT: Final = "DDT (no training)"
"""Its name in tables: deep descriptor transformation."""

_BASIS_FRAMES: Final = 16


def basis_of(frames: Sequence[int]) -> tuple[int, ...]:
    """Choose up to 16 evenly spaced frames of a video, from which its principal component is computed."""
    return tuple(frames[i] for i in spread_out(len(frames), _BASIS_FRAMES))


@dataclass(frozen=True, slots=True)
class VideoDdt:
    """The common object of one video's frames, found by DDT (arXiv:1705.02758).

    The features come from the run's classifier. With ``classifier.freeze_backbone`` that is the pretrained backbone,
    which was trained on no tag.
    """

    localizer: NetworkLocalizer
    component: Component
    record_size: Size

    @classmethod
    def of_video(
        cls, localizer: NetworkLocalizer, record: VideoRecord, basis: Sequence[int], *, batch: int, size: Size
    ) -> VideoDdt:
        """Compute the component from the basis frames of a video at ``size``, (height, width) of the network input.

        Raises:
            VideoError: it cannot be read.
        """
        frames = stream_original(record, size=size, only=basis)
        features = []
        while chunk := list(itertools.islice(frames, batch)):
            features.append(_features(localizer, torch.from_numpy(np.stack([frame.pixels for frame in chunk]))))
        return cls(localizer, principal_component(torch.cat(features)), record.size)

    def boxes(self, frames: Tensor) -> Tensor:
        """Return the box of the common object in uint8 frames ``[N, 3, H, W]``.

        Returns:
            float64 ``[N, 4]`` in original pixels; NaN where nothing was found.
        """
        size = (frames.shape[2], frames.shape[3])
        found = component_boxes(component_maps(_features(self.localizer, frames), self.component), size)
        return scale_boxes(found, size, self.record_size)


@torch.inference_mode()
def _features(localizer: NetworkLocalizer, frames: Tensor) -> Tensor:
    network = localizer.network
    with localizer.compute.autocast():
        last: Tensor = network.backbone(network.images(frames.to(localizer.compute.device))).last
    return last.float()
