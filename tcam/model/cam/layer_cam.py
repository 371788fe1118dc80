"""LayerCAM: features weighted by positive gradients, pixel by pixel."""

from __future__ import annotations

from torch import Tensor

from tcam.model.cam.inputs import CamInputs, class_gradient, weigh


def layer_cam(inputs: CamInputs) -> Tensor:
    """Return LayerCAM maps (Jiang et al., TIP 2021): ``relu(sum_k relu(g_k) A_k)``, ``g = dY_c / dA`` at each pixel.

    Returns:
        ``[N, h, w]``, 0 or more.
    """
    return (class_gradient(inputs).relu() * inputs.features).sum(dim=1).relu()


def closed_layer_cam(features: Tensor, weights: Tensor) -> Tensor:
    """Do the same, up to the factor ``hw``, for a linear head over average pooling: ``relu(sum_k relu(w_k) A_k)``.

    Args:
        features: the head's input, ``[N, D, h, w]``.
        weights: of each image's class, ``[N, D]``.
    """
    return weigh(features, weights.relu()).relu()
