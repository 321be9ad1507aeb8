"""Sums over the processes of a data-parallel training, so that it equals one with a large batch."""

from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor


def num_processes() -> int:
    """Number of processes that train together, 1 when alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over the processes; the gradient is summed likewise."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def sum_over_processes(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, differentiable; itself when alone."""
    if num_processes() == 1:
        return value
    return cast(Tensor, _SumOverProcesses.apply(value))  # type: ignore[no-untyped-call]  # torch's


def loss_divisor(count: Tensor) -> Tensor:
    """Return what a sum of losses over `count` things is divided by to give their mean.

    Alone: the count, at least 1.  With n processes: the count over all of them, at least 1,
    divided by n; for data-parallel training averages gradients over processes, and the mean over
    all things is (1 / n) sum_r (losses of r) / divisor.  All processes must call it.

    Args:
        count: number of things in this process, a scalar of any dtype.
    """
    if num_processes() == 1:
        return count.clamp(min=1)
    total = sum_over_processes(count.detach().double())
    return total.clamp(min=1) / num_processes()
