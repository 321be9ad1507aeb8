"""Batch norm over all processes, on any device and backend.

torch.nn.SyncBatchNorm refuses CPU tensors.  This one adds up sums and square sums with
differentiable all-reduces, so two processes of batch b equal one process with 2 b.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from perception3d.layers.processes import num_processes, sum_over_processes


class SyncBatchNorm(_BatchNorm):
    """Batch norm whose statistics cover the rows of all processes.

    Input (N, C) or (N, C, ...); N may differ between processes and may be 0 in some of them.
    Statistics are computed in float32 at least.  Alone, in eval mode or in one process, it is
    torch's batch norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:  # torch's name for the argument
        if input.dim() < 2:
            raise ValueError(f"SyncBatchNorm: input must be (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; in training also update the running statistics."""
        if num_processes() == 1 or not (self.training or not self.track_running_stats):
            return super().forward(input)
        self._check_input_dim(input)
        values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        rows = [0, *range(2, values.dim())]
        count = values.numel() // values.shape[1]
        # Two rounds (sum, then squared distance from the mean) keep the digits that
        # E[x^2] - E[x]^2 loses.
        number = values.new_tensor([count])
        sums = sum_over_processes(torch.cat([values.sum(rows), number]))
        total = sums[-1].detach()
        # Fewer than two rows have no variance: like RowBatchNorm, use what was seen before.
        enough = total >= 2.0
        mean = sums[:-1] / total.clamp(min=1.0)
        if self.running_mean is not None:
            mean = torch.where(enough, mean, self.running_mean.to(mean.dtype))
        shape = [1, -1] + [1] * (values.dim() - 2)
        centred = values - mean.view(shape)
        variance = sum_over_processes(centred.square().sum(rows)) / total.clamp(min=1.0)
        if self.running_var is not None:
            variance = torch.where(enough, variance, self.running_var.to(variance.dtype))
        self._update_running(mean, variance, total)
        output = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            output = output * self.weight.view(shape) + self.bias.view(shape)
        return output.to(input.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        enough = total >= 2.0
        self.num_batches_tracked += enough.to(self.num_batches_tracked.dtype)
        share = self.momentum
        if share is None:
            share = 1.0 / float(self.num_batches_tracked.clamp(min=1))
        weight = share * enough.to(self.running_mean.dtype)
        unbiased = variance * (total / (total - 1.0).clamp(min=1.0))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), weight)


def synchronise_norms(module: nn.Module) -> nn.Module:
    """Replace every batch norm inside a module by `SyncBatchNorm`; weights and state are kept.

    Returns:
        The module, or its replacement if it is a batch norm itself.
    """
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(
        module, SyncBatchNorm
    ):
        new = SyncBatchNorm(
            module.num_features,
            module.eps,
            module.momentum,
            module.affine,
            module.track_running_stats,
        )
        new.weight, new.bias = module.weight, module.bias
        new.running_mean, new.running_var = module.running_mean, module.running_var
        new.num_batches_tracked = module.num_batches_tracked
        new.training = module.training
        return new
    for name, child in module.named_children():
        setattr(module, name, synchronise_norms(child))
    return module
