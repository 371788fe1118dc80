"""CAM: the class maps that the head has itself."""

from __future__ import annotations

from torch import Tensor

from tcam.model.cam.inputs import CamInputs


def cam(inputs: CamInputs) -> Tensor:
    """Take the head's own map of one class each (CAM, Zhou et al., arXiv:1512.04150), any sign, ``[N, h, w]``.

    With a linear head over average pooling ``M = sum_k w_k A_k``; its bias plays no part. Each pooling in
    ``tcam.model.heads.pooling`` says what its maps are.

    Raises:
        ValueError: the layer is not the head's input.
    """
    if inputs.head is None:
        raise ValueError("cam needs the class head itself: its layer must be the head's input")
    return inputs.head.class_maps(inputs.features, inputs.labels)
