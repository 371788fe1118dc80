"""GradCAM++: gradients weighted by second and third derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

from tcam.model.cam.inputs import CamInputs, class_gradient, weigh


def grad_cam_plus_plus(inputs: CamInputs) -> Tensor:
    """Return GradCAM++ maps as published (Chattopadhay et al., arXiv:1710.11063, equations 5, 7 and 19).

    With ``g = dY_c / dA`` and the exponential of the logit as the score, ``alpha = g^2 / (2 g^2 + g^3 sum_p A_k)``; the
    weight of a channel is ``sum_p alpha relu(g)``. Where ``g > 0``, ``alpha = 1 / (2 + g sum_p A_k)``: no small number
    need be added to the divisor, which in other code outweighs the squares of small gradients.

    Returns:
        ``[N, h, w]``, 0 or more.
    """
    gradient = class_gradient(inputs)
    divisor = 2 + gradient * inputs.features.sum(dim=(2, 3), keepdim=True)
    weights = torch.where(divisor != 0, gradient.relu() / divisor, 0).sum(dim=(2, 3))
    return weigh(inputs.features, weights).relu()


def closed_grad_cam_plus_plus(features: Tensor, weights: Tensor) -> Tensor:
    """Do the same for a linear head over average pooling: ``hw relu(g_k) / (2 + g_k sum_p A_k)``, ``g_k = w_k / hw``.

    Args:
        features: the head's input, ``[N, D, h, w]``.
        weights: of each image's class, ``[N, D]``.
    """
    divisor = 2 + weights * features.mean(dim=(2, 3))
    return weigh(features, torch.where(divisor != 0, weights.relu() / divisor, 0)).relu()
