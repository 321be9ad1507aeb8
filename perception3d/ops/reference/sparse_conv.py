"""Plain torch twin of `perception3d.ops.sparse_conv`."""

import torch
from torch import Tensor


def sparse_conv(
    features: Tensor,
    inputs: Tensor,
    outputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Convolve the features of voxels; see `perception3d.ops.sparse_conv`."""
    wide = features.double() if features.dtype == torch.float64 else features.float()
    factor = weight.flatten(1, 3).permute(1, 2, 0) if weight.ndim == 5 else weight
    padded = torch.cat([wide, wide.new_zeros((1, wide.shape[1]))])  # row -1: no voxel
    result = wide.new_zeros((inputs.shape[0], factor.shape[2]))
    for tap, rows in enumerate(inputs.long().unbind(1)):
        result = result + padded[rows] @ factor[tap].to(wide.dtype)
    result = result if bias is None else result + bias.to(wide.dtype)
    return result.to(features.dtype)
