"""Plain torch twin of `perception3d.ops.depthwise_conv`."""

from collections.abc import Sequence

import torch
from torch import Tensor


def depthwise_conv(
    features: Tensor, kernels: Sequence[tuple[Tensor, Tensor, int]], *, residual: bool = False
) -> Tensor:
    """Convolve groups of channels; see `perception3d.ops.depthwise_conv`."""
    wide = features.double() if features.dtype == torch.float64 else features.float()
    padded = torch.cat([wide, wide.new_zeros((1, wide.shape[1]))])  # row -1: no voxel
    result = wide.clone()
    for neighbours, weight, first in kernels:
        factor = weight.reshape(-1, weight.shape[-1]).to(wide.dtype)
        channels = slice(first, first + factor.shape[1])
        gathered = padded[neighbours.long(), channels]  # (N, K, C_k)
        result[:, channels] = (gathered * factor).sum(1)
    return (result + wide if residual else result).to(features.dtype)
