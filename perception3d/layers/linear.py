"""Linear maps of rows as modules, and with the norm behind them."""

import torch
from torch import Tensor, nn

from perception3d.layers.normalization import affine_of
from perception3d.ops.linear import linear


class RowLinear(nn.Linear):
    """nn.Linear for (N, C) rows through `ops.linear`."""

    def forward(self, rows: Tensor) -> Tensor:
        """Map (N, C) to (N, K)."""
        return linear(rows, self.weight, self.bias)


def linear_norm_relu(
    layer: nn.Linear, norm: nn.modules.batchnorm._BatchNorm, rows: Tensor
) -> Tensor:
    """Compute ReLU(norm(layer(rows))); in evaluation without gradients as one linear map."""
    affine = affine_of(norm)
    if affine is None:
        return torch.relu(norm(layer(rows)))
    scale, shift = affine
    bias = shift if layer.bias is None else torch.addcmul(shift, layer.bias, scale)
    return linear(rows, layer.weight * scale[:, None], bias, "relu")
