"""GradCAM: channels weighted by their mean gradient."""

from __future__ import annotations

from torch import Tensor

from tcam.model.cam.inputs import CamInputs, class_gradient, weigh


def grad_cam(inputs: CamInputs) -> Tensor:
    """Return GradCAM maps (Selvaraju et al., arXiv:1610.02391): ``relu(sum_k mean_p(g_k) A_k)``, ``g = dY_c / dA``.

    Returns:
        ``[N, h, w]``, 0 or more.
    """
    return weigh(inputs.features, class_gradient(inputs).mean(dim=(2, 3))).relu()


def closed_grad_cam(features: Tensor, weights: Tensor) -> Tensor:
    """Do the same for a linear head over average pooling, whose gradient is ``w_k / hw`` everywhere.

    Args:
        features: the head's input, ``[N, D, h, w]``.
        weights: of each image's class, ``[N, D]``.
    """
    return weigh(features, weights / features[0, 0].numel()).relu()
