"""Leave autocast: sums and losses need at least float32."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Convert float16 and bfloat16 tensors, as autocast returns them, to float32; float32 and float64 stay."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
