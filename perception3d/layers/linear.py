"""Linear maps of rows as modules."""

from torch import Tensor, nn

from perception3d.ops.linear import linear


class RowLinear(nn.Linear):
    """nn.Linear for (N, C) rows through `ops.linear`."""

    def forward(self, rows: Tensor) -> Tensor:
        """Map (N, C) to (N, K)."""
        return linear(rows, self.weight, self.bias)
