"""Plain torch twin of `perception3d.ops.linear`."""

import torch.nn.functional as F
from torch import Tensor


def linear(
    rows: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None
) -> Tensor:
    """Map rows; see `perception3d.ops.linear`."""
    result = rows @ weight.t()
    result = result if bias is None else result + bias
    if activation == "gelu":
        return F.gelu(result)
    return F.relu(result) if activation == "relu" else result
