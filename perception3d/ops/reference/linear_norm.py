"""Plain torch twin of `perception3d.ops.linear_norm`."""

from collections.abc import Sequence

import torch
from torch import Tensor


def linear_norm(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stages: Sequence[tuple[Tensor, Tensor, Tensor]],
    epsilon: float = 1e-5,
) -> Tensor:
    """Map rows, then add and normalise; see `perception3d.ops.linear_norm`."""
    result = rows @ weight.t()
    result = result if bias is None else result + bias
    for kept, norm_weight, norm_bias in stages:
        total = result + kept
        centred = total - total.mean(1, keepdim=True)
        variance = centred.square().mean(1, keepdim=True)
        result = centred * torch.rsqrt(variance + epsilon) * norm_weight + norm_bias
    return result
