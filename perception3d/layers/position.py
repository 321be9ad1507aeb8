"""Position embeddings from the window of a voxel and its cell inside it."""

import torch
from torch import Tensor, nn

from perception3d.layers.linear import RowLinear, linear_norm_relu
from perception3d.layers.normalization import RowBatchNorm
from perception3d.structures import SparseVoxels, TableRows

# Haiyang-W/DSVT: pcdet/models/backbones_3d/dsvt_input_layer.py writes pi like this.
_PI_OF_DSVT = 3.1415


class PositionEmbedding(nn.Module):
    """Linear - BatchNorm - ReLU - Linear over the cell in the window, counted from its middle.

    The input row is (x, y) for windows of one cell in z, else (x, y, z).  It depends on the cell
    alone, so in eval mode the network runs once per cell of the window where these are fewer than
    the voxels, with equal values; in training every voxel counts in the batch statistics.
    Computed in float32 or wider, under autocast too.

    Args:
        channels: width C of the embedding.
        window: window size in cells, order z, y, x.
        normalize: scale each axis to about -pi .. pi (as DSVT's `normalize_pos`).
    """

    def __init__(
        self, channels: int, window: tuple[int, int, int], *, normalize: bool = False
    ) -> None:
        super().__init__()
        self.window = window
        self.normalize = normalize
        self.linear1 = nn.Linear(3 if window[0] > 1 else 2, channels)
        self.norm = RowBatchNorm(channels)
        self.linear2 = RowLinear(channels, channels)

    @property
    def num_cells(self) -> int:
        """Cells of a window."""
        return self.window[0] * self.window[1] * self.window[2]

    def forward(self, cell_in_window: Tensor) -> Tensor | TableRows:
        """Embed the voxels.

        Args:
            cell_in_window: (N, 3) int32 rows (z, y, x), each in [0, window).

        Returns:
            (N, C) in the dtype of the weights; as rows of a table where the network ran once per
            cell.
        """
        with torch.autocast(cell_in_window.device.type, enabled=False):
            if self.training or self.num_cells >= cell_in_window.shape[0]:
                return self._embed(cell_in_window)
            _, height, width = self.window
            z, y, x = cell_in_window.long().unbind(1)
            table = self._embed(self._all_cells(cell_in_window.device))
            return TableRows(table, (z * height + y) * width + x)

    def _all_cells(self, device: torch.device) -> Tensor:
        axes = [torch.arange(size, dtype=torch.int32, device=device) for size in self.window]
        return torch.cartesian_prod(*axes)

    def _embed(self, cells: Tensor) -> Tensor:
        columns = []
        for axis in (2, 1, 0)[: self.linear1.in_features]:
            size = self.window[axis]
            column = cells[:, axis].to(self.linear1.weight.dtype) - size / 2
            columns.append(column / size * 2 * _PI_OF_DSVT if self.normalize else column)
        hidden = linear_norm_relu(self.linear1, self.norm, torch.stack(columns, dim=1))
        embedding: Tensor = self.linear2(hidden)
        return embedding


class ImplicitWindowEmbedding(nn.Module):
    """Linear - BatchNorm - ReLU - Linear over height, window and cell in the window.

    Windows are columns of `window` x `window` cells, once from the grid's corner and once
    shifted by half.  No voxel is grouped by them: they enter the embedding alone (the implicit
    window partition of gwenzhang/Voxel-Mamba).  Nine columns, each about 0..1: z, then per
    partition the window and the cell in it, y before x.  Both window numbers are divided by the
    count along y, also on grids that are not square: published weights expect that.
    Computed in float32 or wider, under autocast too.

    Args:
        channels: width C of the embedding.
        window: cells along an edge of a window.

    Raises:
        ValueError: window below 1.
    """

    def __init__(self, channels: int, window: int = 12) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"ImplicitWindowEmbedding: window must be >= 1, got {window}")
        self.window = window
        self.linear1 = RowLinear(9, channels)
        self.norm = RowBatchNorm(channels)
        self.linear2 = RowLinear(channels, channels)

    def forward(self, voxels: SparseVoxels) -> Tensor:
        """Embed N voxels: (N, C) in the dtype of the weights."""
        with torch.autocast(voxels.coords.device.type, enabled=False):
            columns = self._columns(voxels).to(self.linear1.weight.dtype)
            hidden = linear_norm_relu(self.linear1, self.norm, columns)
            embedding: Tensor = self.linear2(hidden)
            return embedding

    def _columns(self, voxels: SparseVoxels) -> Tensor:
        """Return the (N, 9) inputs, float32."""
        depth, height, _ = voxels.spatial_shape
        size, count = self.window, height // self.window + 1
        z, in_plane = voxels.coords[:, 1:2], voxels.coords[:, 2:]
        columns = [z / depth]
        for shift in (0, size // 2):
            cells = in_plane + shift
            columns += [torch.div(cells, size, rounding_mode="floor") / count, cells % size / size]
        return torch.cat(columns, dim=1)
