"""Layers that depend on the whole batch, when the batch is shared by several processes.

Batch normalisation uses mean and variance over the frames of all processes. Dropout draws for all frames in every
process, which then takes its own rows. So the numbers are those of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pipelines.training.distributed.process_group import BatchShard, ProcessGroup

_DROPOUTS: Final = (functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d)


class WholeBatch(TorchFunctionMode):
    """Context in which a network that receives ``frames`` of a batch behaves as if it received the whole batch."""

    def __init__(self, group: ProcessGroup, frames: BatchShard) -> None:
        super().__init__()
        self._group, self._frames = group, frames

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 (whatever the function gives)
        named = dict(kwargs or {})
        if func is functional.batch_norm and named.get("training"):
            return self._batch_norm(*args, **named)
        if func in _DROPOUTS and named.get("training", True):
            mask = func(self._of_all(args[0], 1.0), **{**named, "inplace": False})
            return args[0] * self._own(mask)
        if func is Tensor.bernoulli_:
            drawn = func(self._of_all(args[0], 0.0), *args[1:], **named)
            return args[0].copy_(self._own(drawn))
        return func(*args, **named)

    def _of_all(self, values: Tensor, fill: float) -> Tensor:
        return values.new_full((self._frames.total, *values.shape[1:]), fill)

    def _own(self, values: Tensor) -> Tensor:
        return values[self._frames.first : self._frames.stop]

    def _batch_norm(
        self,
        values: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        *,
        weight: Tensor | None,
        bias: Tensor | None,
        momentum: float,
        eps: float,
        **_: object,
    ) -> Tensor:
        mean, var, count = _moments(values.detach(), self._group, self._frames.counts)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * (count / max(count - 1, 1))).to(running_var.dtype), momentum)
        scale = torch.ones_like(mean) if weight is None else weight
        shift = torch.zeros_like(mean) if bias is None else bias
        normalised: Tensor = _BatchNorm.apply(
            values, scale, shift, (mean, var, count, eps, self._group, self._frames.counts)
        )
        return normalised


def _moments(values: Tensor, group: ProcessGroup, counts: bool) -> tuple[Tensor, Tensor, float]:
    """Return mean and variance (over n) of each channel of ``[N, C, ...]`` over the group, ``[C]``, and the count n.

    Chan et al. 1979: means and squared deviations of the shards make those of the whole, without cancellation.
    """
    channels, own_count = values.shape[1], values.numel() // values.shape[1]
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    table = wide.new_zeros((group.size, 2 * channels + 1))
    if counts:
        var, mean = torch.var_mean(wide, dim=[i for i in range(values.ndim) if i != 1], correction=0)
        table[group.rank] = torch.cat([mean, var, mean.new_tensor([own_count])])
    means, variances, shards = torch.split(group.sum(table).double(), [channels, channels, 1], dim=1)
    total = shards.sum()
    mean = (shards * means).sum(dim=0) / total
    var = (shards * (variances + (means - mean).square())).sum(dim=0) / total
    return mean.to(wide.dtype), var.to(wide.dtype), float(total)


class _BatchNorm(torch.autograd.Function):
    """Normalise a shard by the moments of the whole batch; the gradient flows through those moments too."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        values: Tensor,
        weight: Tensor,
        bias: Tensor,
        facts: tuple[Tensor, Tensor, float, float, ProcessGroup, bool],
    ) -> Tensor:
        mean, var, count, eps, group, counts = facts
        ctx.facts = count, eps, group, counts  # type: ignore[attr-defined]
        ctx.save_for_backward(values, weight, mean, var)
        return functional.batch_norm(values, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.BackwardCFunction, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, var = cast("tuple[Tensor, ...]", ctx.saved_tensors)
        count, eps, group, counts = ctx.facts  # type: ignore[attr-defined]
        inverse = (var + eps).rsqrt()
        grad_values, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grads[0], values, weight, mean, var, mean, inverse, False, eps, [True, True, True]
        )
        # dL/dx = w / s (g - mean(g) - x^ mean(g x^)), x^ the normalised values, means over the whole batch.
        whole_weight, whole_bias = group.sum(torch.stack([grad_weight, grad_bias])) / count
        if not counts:
            return grad_values, grad_weight, grad_bias, None  # these values had no part in the moments; all zero
        slope = weight * inverse * inverse * whole_weight
        offset = weight * inverse * whole_bias - slope * mean
        shape = (1, -1, *[1] * (values.ndim - 2))
        grad_values = torch.addcmul(grad_values, values, slope.view(shape), value=-1).sub_(offset.view(shape))
        return grad_values.to(values.dtype), grad_weight, grad_bias, None
