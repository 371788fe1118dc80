"""Out of autocast: sums and losses want at least float32."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Widen float16 and bfloat16, as autocast leaves them, to float32; float32 and float64 stay."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
