"""The attention of a vision transformer's class token, which is the same for all classes."""

from __future__ import annotations

from torch import Tensor

from tcam.model.cam.inputs import CamInputs


def cls_attention(inputs: CamInputs) -> Tensor:
    """Return the class token's attention in the last block, the mean over heads (DINO, Caron et al., arXiv:2104.14294).

    It is the same for all classes and shows salient objects, best with self-supervised weights.

    Returns:
        ``[N, h, w]``, 0 or more.

    Raises:
        ValueError: the inputs lack attention.
    """
    return attention_of(inputs)[:, -1].mean(dim=1)


def attention_of(inputs: CamInputs) -> Tensor:
    """Return the inputs' attention, ``[N, blocks, heads, h, w]``.

    Raises:
        ValueError: it has none.
    """
    if inputs.attention is None:
        raise ValueError("this method looks at the attention of a vision transformer: the inputs have none")
    return inputs.attention
