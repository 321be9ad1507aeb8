"""Plain torch twin of `perception3d.ops.causal_conv1d`."""

import torch
from torch import Tensor
from torch.nn import functional as F

from perception3d.ops.reference.sequences import walks


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    *,
    activation: str | None = None,
    order: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """Convolve sequences; see `perception3d.ops.causal_conv1d`."""
    numbers, taps = x.to(weight.dtype), weight.shape[1]
    sequences = walks(x.shape[0], offsets, order, reverse)
    found = [numbers.new_zeros((0, x.shape[1]))]
    for rows in (rows for rows in sequences if rows.shape[0] > 0):
        padded = F.pad(numbers[rows], (0, 0, taps - 1, 0))
        windows = padded.unfold(0, taps, 1)  # (length, D, K)
        found.append((windows * weight).sum(2))
    place_of_row = torch.cat([offsets.new_zeros(0), *sequences]).argsort()
    y = torch.cat(found)[place_of_row]
    y = y if bias is None else y + bias
    return (F.silu(y) if activation == "silu" else y).to(x.dtype)
