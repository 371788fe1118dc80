"""The table of CAM methods, and the function that makes maps by a method's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from tcam.model.cam.ablation_cam import AblationCam, closed_ablation_cam
from tcam.model.cam.class_activation import cam, prior_cam
from tcam.model.cam.cls_attention import cls_attention
from tcam.model.cam.grad_cam import closed_grad_cam, grad_cam
from tcam.model.cam.grad_cam_plus_plus import closed_grad_cam_plus_plus, grad_cam_plus_plus
from tcam.model.cam.inputs import CamInputs
from tcam.model.cam.is_cam import IsCam
from tcam.model.cam.layer_cam import closed_layer_cam, layer_cam
from tcam.model.cam.score_cam import ScoreCam
from tcam.model.cam.smooth_grad_cam_plus_plus import SmoothGradCamPlusPlus
from tcam.model.cam.ss_cam import SsCam
from tcam.model.cam.ts_cam import ts_cam
from tcam.model.cam.xgrad_cam import xgrad_cam


@dataclass(frozen=True, slots=True)
class CamMethod:
    """One row of the table.

    Attributes:
        make: returns the maps ``[N, h, w]`` of some inputs, in any scale; works with any head and layer.
        closed: returns the same maps, up to a factor, from features ``[N, D, h, w]`` and each image's class weights
            ``[N, D]``, for a linear head over average pooling; None if there is no such form.
        unfit: poolings that it does not work with, and why.
        of_attention: whether it needs the attention of a vision transformer, which other networks do not have.
        of_imagenet: whether it needs the ImageNet classifier of the pretrained weights.
    """

    make: Callable[[CamInputs], Tensor]
    closed: Callable[[Tensor, Tensor], Tensor] | None = None
    unfit: Mapping[str, str] = field(default_factory=dict)
    of_attention: bool = False
    of_imagenet: bool = False


CAM_METHODS: Final[Mapping[str, CamMethod]] = MappingProxyType(
    {
        "cam": CamMethod(cam),
        "gradcam": CamMethod(grad_cam, closed_grad_cam),
        "gradcam++": CamMethod(grad_cam_plus_plus, closed_grad_cam_plus_plus),
        "smoothgradcam++": CamMethod(SmoothGradCamPlusPlus(), closed_grad_cam_plus_plus),
        "xgradcam": CamMethod(xgrad_cam, closed_grad_cam),
        "layercam": CamMethod(
            layer_cam, closed_layer_cam, {"max": "the gradient of a maximum is 0 at all pixels but one"}
        ),
        "scorecam": CamMethod(ScoreCam()),
        "sscam": CamMethod(SsCam()),
        "iscam": CamMethod(IsCam()),
        "ablationcam": CamMethod(AblationCam(), closed_ablation_cam),
        "tscam": CamMethod(ts_cam, of_attention=True),
        "clsattention": CamMethod(cls_attention, of_attention=True),
        "prior": CamMethod(prior_cam, of_imagenet=True),
    }
)
"""The CAM methods by their name in settings and tables."""


@torch.no_grad()
def make_cam(method: str, inputs: CamInputs) -> Tensor:
    """Return raw maps ``[N, h, w]`` by a method of the table, without a backward pass if it has a closed form.

    The maps have no graph.

    Raises:
        ValueError: the inputs lack what the method needs.
    """
    row = CAM_METHODS[method]
    weights = None if inputs.head is None else inputs.head.pooled_weight
    if row.closed is None or weights is None:
        return row.make(inputs)
    return row.closed(inputs.features, weights.to(inputs.features.dtype)[inputs.labels])
