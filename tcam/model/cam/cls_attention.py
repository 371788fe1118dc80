"""What the class token of a vision transformer looks at, whatever the class."""

from __future__ import annotations

from torch import Tensor

from tcam.model.cam.scene import CamInputs


def cls_attention(scene: CamInputs) -> Tensor:
    """Take the class token's attention in the last block, the mean over heads (DINO, Caron et al., arXiv:2104.14294).

    The same for all classes: it shows what stands out, best with self-supervised weights.

    Returns:
        ``[N, h, w]``, 0 or more.

    Raises:
        ValueError: the scene lacks attention.
    """
    return attention_of(scene)[:, -1].mean(dim=1)


def attention_of(scene: CamInputs) -> Tensor:
    """Return the scene's attention, ``[N, blocks, heads, h, w]``.

    Raises:
        ValueError: it has none.
    """
    if scene.attention is None:
        raise ValueError("this method looks at the attention of a vision transformer: the scene has none")
    return scene.attention
