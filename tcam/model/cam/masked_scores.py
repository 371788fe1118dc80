"""The step Score-CAM and its kin share: what the network says of an image seen through one channel at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tcam.model.cam.inputs import CamInputs, weigh

Change = Callable[[Tensor], Tensor]
"""Alters masks ``[M, 1, H, W]``."""


def score_weighted_cam(inputs: CamInputs, changes: Sequence[Change], *, batch: int) -> Tensor:
    """Weigh channels by ``softmax_k`` of the class logit of the image under the channel's mask, averaged over changes.

    A mask is the channel at the size of the image, stretched to 0..1. Published weights take the logit of a baseline
    image off first: softmax does not see that. Channels that are constant have one and the same mask, 0.

    Args:
        inputs: with images.
        changes: of the masks; as many passes through the network for each channel.
        batch: masked images in one pass.

    Returns:
        ``[N, h, w]``, 0 or more.

    Raises:
        ValueError: the inputs has no images.
    """
    if inputs.images is None or inputs.look is None:
        raise ValueError("methods that mask the image need the images and what comes before the layer")
    scores = torch.zeros_like(inputs.features[:, :, 0, 0])
    with torch.no_grad():
        for i, image in enumerate(inputs.images()):
            flat = inputs.features[i].flatten(1)
            constant = flat.amax(dim=1) == flat.amin(dim=1)
            dull = constant.nonzero()[:, 0]
            for channels in torch.split(torch.cat([(~constant).nonzero()[:, 0], dull[:1]]), batch):
                masks = _masks(inputs.features[i, channels], image)
                seen = [inputs.score(inputs.look(change(masks) * image))[:, inputs.labels[i]] for change in changes]
                scores[i, channels] = torch.stack(seen).mean(dim=0).to(scores.dtype)
            scores[i, dull] = scores[i, dull[:1]]
    return weigh(inputs.features, scores.softmax(dim=1)).relu()


def _masks(channels: Tensor, image: Tensor) -> Tensor:
    """Stretch channels ``[M, h, w]`` to 0..1 at the size of an image ``[3, H, W]``; gives ``[M, 1, H, W]``."""
    large = functional.interpolate(channels[:, None], size=image.shape[1:], mode="bilinear", align_corners=False)
    shifted = large - large.amin(dim=(2, 3), keepdim=True)
    return shifted / shifted.amax(dim=(2, 3), keepdim=True).clamp_min(torch.finfo(shifted.dtype).tiny)
