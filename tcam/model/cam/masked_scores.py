"""The step shared by Score-CAM and its variants: class scores of images masked by one channel at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tcam.model.cam.inputs import CamInputs, weigh

Change = Callable[[Tensor], Tensor]
"""Alters masks ``[M, 1, H, W]``."""


def score_weighted_cam(inputs: CamInputs, changes: Sequence[Change], *, batch: int) -> Tensor:
    """Return maps whose channels are weighted by ``softmax_k`` of the class logit of the masked image.

    The mask is the channel, resized to the image and normalised to 0..1; logits are averaged over ``changes`` of the
    mask. The published weights first subtract the logit of a baseline image, which softmax cancels. All constant
    channels have the same mask, 0.

    Args:
        inputs: the inputs, with images.
        changes: functions applied to the masks; each takes one forward pass per channel.
        batch: masked images per forward pass.

    Returns:
        ``[N, h, w]``, 0 or more.

    Raises:
        ValueError: the inputs have no images.
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
    """Return channels ``[M, h, w]`` normalised to 0..1 and resized to an image ``[3, H, W]``: ``[M, 1, H, W]``."""
    large = functional.interpolate(channels[:, None], size=image.shape[1:], mode="bilinear", align_corners=False)
    shifted = large - large.amin(dim=(2, 3), keepdim=True)
    return shifted / shifted.amax(dim=(2, 3), keepdim=True).clamp_min(torch.finfo(shifted.dtype).tiny)
