"""CAM temporal max-pooling (CAM-TMP): each frame's CAM is max-pooled with those of the frames before it."""

from __future__ import annotations

import torch
from torch import Tensor


def temporal_max_pool(cam: Tensor, window: int) -> Tensor:
    """Return, for every frame, the maximum of its own CAM and those just before it (TCAM, arXiv:2208.14542, CAM-TMP).

    CAMs are not aligned by motion and not normalised again.

    Args:
        cam: ``[B, T, h, w]``, in 0..1; T is 1 or more.
        window: number of frames pooled, the current one included; 1 changes nothing.

    Returns:
        ``[B, T, h, w]``; early frames of a shot pool over the frames there are.

    Raises:
        ValueError: another shape, or ``window`` below 1.
    """
    if cam.ndim != 4 or cam.shape[1] == 0:
        raise ValueError(f"cam must be [B, T, h, w] with T of 1 or more, got {list(cam.shape)}")
    if window < 1:
        raise ValueError(f"window must be 1 or more frames, got {window}")
    reach = min(window, cam.shape[1])
    # Frame 0 lies in every window that reaches past the start, so repeating it there changes no maximum.
    padded = torch.cat([cam[:, :1].expand(-1, reach - 1, -1, -1), cam], dim=1)
    return padded.unfold(1, reach, 1).amax(dim=-1)


def overheat(cam: Tensor, temperature: float) -> Tensor:
    """Sharpen each CAM before pooling (TCAM, arXiv:2208.14542): ``exp(h C(p)) / max_q exp(h C(q))``.

    The background rises to ``exp(-h)``; a high ``temperature`` h keeps only the peaks.

    Args:
        cam: ``[..., h, w]``, in 0..1.
        temperature: h, 0 or more; 0 stands for no overheating and changes nothing.

    Returns:
        As ``cam``, in 0..1, the maximum of each map 1.

    Raises:
        ValueError: fewer than two dimensions, or ``temperature`` below 0.
    """
    if cam.ndim < 2:
        raise ValueError(f"cam must be [..., h, w], got {list(cam.shape)}")
    if temperature < 0:
        raise ValueError(f"temperature must be 0 or more, got {temperature}")
    if temperature == 0:
        return cam
    # The same quotient with the maximum taken inside the exponential, where it cannot overflow.
    return torch.exp(temperature * (cam - cam.amax(dim=(-2, -1), keepdim=True))).nan_to_num(nan=0.0)
