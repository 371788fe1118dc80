"""XGradCAM: gradients weighted by the activations of the channel."""

from __future__ import annotations

import torch
from torch import Tensor

from tcam.model.cam.inputs import CamInputs, class_gradient, weigh


def xgrad_cam(inputs: CamInputs) -> Tensor:
    """Return XGradCAM maps (Fu et al., arXiv:2008.02312): weights ``sum_p g_k A_k / sum_p A_k``, ``g = dY_c / dA``.

    A channel that sums to zero has weight 0. With a linear head over average pooling this is GradCAM.

    Returns:
        ``[N, h, w]``, 0 or more.
    """
    total = inputs.features.sum(dim=(2, 3))
    weighed = (class_gradient(inputs) * inputs.features).sum(dim=(2, 3))
    return weigh(inputs.features, torch.where(total != 0, weighed / total, 0)).relu()
