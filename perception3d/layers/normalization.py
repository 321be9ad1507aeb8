"""Batch normalisation of rows whose number changes from batch to batch."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RowBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of (R, C) rows (points, voxels) that takes any R, also in training.

    Fewer than two rows have no variance.  They are normalised with the running statistics, which
    stay as they are, so that an almost empty frame neither stops a training nor spoils it.

    On the CPU the statistics of a batch are sums over a tree of partial sums.  Torch's own, one
    running sum per thread and column, are ten times less exact over thousands of rows.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (R, C) per column."""
        if self.training and input.shape[0] < 2:
            # Copies: a shared norm may move its statistics before the backward pass reads them.
            mean = None if self.running_mean is None else self.running_mean.clone()
            variance = None if self.running_var is None else self.running_var.clone()
            return F.batch_norm(input, mean, variance, self.weight, self.bias, eps=self.eps)
        plain = self.affine and self.track_running_stats and self.momentum is not None
        if not (self.training and plain and input.device.type == "cpu"):
            return super().forward(input)
        if input.dtype not in (torch.float32, torch.float64) or input.dtype != self.weight.dtype:
            return super().forward(input)
        self._check_input_dim(input)
        mean, variance = self._batch_statistics(input)
        result: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]  # torch's
            input, self.weight, self.bias, mean, variance, self.eps
        )
        return result

    @torch.no_grad()
    def _batch_statistics(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance (C,) and move the running ones towards them."""
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        rows = input.shape[0]
        mean = input.mean(0)
        variance = (input - mean).square_().mean(0)
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (rows / (rows - 1)), self.momentum)
        return mean, variance


def affine_of(norm: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor] | None:
    """Return scale and shift (C,) that a norm amounts to, so that a linear map can take them in.

    None in training, whose statistics are those of the rows, and where gradients are recorded.
    """
    if norm.training or torch.is_grad_enabled():
        return None
    if norm.running_mean is None or norm.running_var is None or not norm.affine:
        return None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, torch.addcmul(norm.bias, norm.running_mean, scale, value=-1)


class _Normalise(torch.autograd.Function):
    """Batch normalisation with given statistics of the same rows, and its gradient."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  # torch's
        rows: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(rows, weight, mean, torch.rsqrt(variance + eps))
        ctx.eps = eps
        return F.batch_norm(rows, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        rows, weight, mean, inverse = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        return (
            *torch.ops.aten.native_batch_norm_backward(
                grads[0], rows, weight, None, None, mean, inverse, True, ctx.eps, wanted
            ),
            None,
            None,
            None,
        )
