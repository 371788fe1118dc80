"""CAM: the class head's own map of a class."""

from __future__ import annotations

from torch import Tensor

from tcam.model.cam.inputs import CamInputs


def cam(inputs: CamInputs) -> Tensor:
    """Return the head's own map of each image's class (CAM, Zhou et al., arXiv:1512.04150), any sign, ``[N, h, w]``.

    For a linear head over average pooling it is ``M = sum_k w_k A_k``, without the bias. The poolings in
    ``tcam.model.heads.pooling`` document their maps.

    Raises:
        ValueError: the layer is not the head's input.
    """
    if inputs.head is None:
        raise ValueError("cam needs the class head itself: its layer must be the head's input")
    return inputs.head.class_maps(inputs.features, inputs.labels)
