"""TS-CAM: the class token's attention, multiplied by the head's class map of the tokens."""

from __future__ import annotations

from torch import Tensor

from tcam.model.cam.cls_attention import attention_of
from tcam.model.cam.inputs import CamInputs


def ts_cam(inputs: CamInputs) -> Tensor:
    """Return TS-CAM maps (Gao et al., ICCV 2021, arXiv:2103.14862): ``M_c = A S_c``, pixel by pixel.

    ``A`` is the class token's attention to the patches, the mean over all blocks and heads; ``S_c`` the head's own map
    of the class. The published head is the pooling ``convgap``.

    Returns:
        ``[N, h, w]``, any sign.

    Raises:
        ValueError: the inputs lack attention, or the layer is not the head's input.
    """
    if inputs.head is None:
        raise ValueError("tscam needs the class head itself: its layer must be the head's input")
    return attention_of(inputs).mean(dim=(1, 2)) * inputs.head.class_maps(inputs.features, inputs.labels)
