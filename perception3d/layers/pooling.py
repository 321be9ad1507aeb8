"""Pooling of voxels into coarser cells."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perception3d.layers.linear import RowLinear
from perception3d.ops.linear import linear
from perception3d.ops.segment_reduce import segment_reduce
from perception3d.structures import SparseVoxels, WindowSpec


@dataclass(frozen=True)
class PooledCells:
    """Where the voxels go when blocks of stride cells become one cell.

    Attributes:
        coords: (M, 4) int32 rows (b, z, y, x) of the coarse cells, ascending by (b, x, y, z).
        cell_of_voxel: (N,) int64 row of `coords`.
        slot_of_voxel: (N,) int64 place in the block, (x * dy + y) * dz + z.
        order: (N,) int64 voxels sorted by coarse cell.
        offsets: (M + 1,) int64, cell m holds the voxels order[offsets[m]:offsets[m + 1]].
        spatial_shape: coarse grid size in cells, order z, y, x.
        volume: slots V of a block.
    """

    coords: Tensor
    cell_of_voxel: Tensor
    slot_of_voxel: Tensor
    order: Tensor
    offsets: Tensor
    spatial_shape: tuple[int, int, int]
    volume: int

    @property
    def num_cells(self) -> int:
        """Number of coarse cells M."""
        return self.coords.shape[0]

    @property
    def row_of_voxel(self) -> Tensor:
        """(N,) row of each voxel in a dense buffer of M * V slots."""
        return self.cell_of_voxel * self.volume + self.slot_of_voxel


def pool_cells(voxels: SparseVoxels, stride: tuple[int, int, int]) -> PooledCells:
    """Find the coarse cells of voxels, once per stride (kept in the voxels' index cache).

    Args:
        voxels: N voxels.
        stride: cells per coarse cell, order z, y, x.
    """

    def compute() -> PooledCells:
        blocks = voxels.windows(WindowSpec(stride))  # a block is a window of stride cells
        first = voxels.coords[blocks.order[blocks.offsets[:-1]]]
        step = first.new_tensor((1, *stride))
        z, y, x = blocks.cell_in_window.long().unbind(1)
        depth, height, width = voxels.spatial_shape
        return PooledCells(
            coords=torch.div(first, step, rounding_mode="floor"),
            cell_of_voxel=blocks.window_of_voxel,
            slot_of_voxel=(x * stride[1] + y) * stride[0] + z,
            order=blocks.order,
            offsets=blocks.offsets,
            spatial_shape=(
                math.ceil(depth / stride[0]),
                math.ceil(height / stride[1]),
                math.ceil(width / stride[2]),
            ),
            volume=math.prod(stride),
        )

    return voxels.cache.get(("pooled", stride), compute)


def max_with_empty(features: Tensor, cells: PooledCells) -> Tensor:
    """Return the maximum (M, C) over the V slots of each cell, where empty slots count as 0."""
    maximum = segment_reduce(features, cells.order, cells.offsets, "max")
    full = cells.offsets.diff() == cells.volume
    return torch.where(full[:, None], maximum, maximum.clamp(min=0))


def _coarse(voxels: SparseVoxels, cells: PooledCells, features: Tensor) -> SparseVoxels:
    return SparseVoxels(features, cells.coords, cells.spatial_shape, voxels.batch_size)


class MaxPooling(nn.Module):
    """Maximum over the slots of a coarse cell, empty slots counting as 0.

    Args:
        stride: cells per coarse cell, order z, y, x.
    """

    def __init__(self, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        """Pool N voxels with C channels into M with C."""
        cells = pool_cells(voxels, self.stride)
        return _coarse(voxels, cells, max_with_empty(voxels.features, cells))


class LinearPooling(nn.Module):
    """Linear map of all slots of a coarse cell, empty slots counting as 0, and LayerNorm.

    Args:
        in_channels: width C of the voxels.
        out_channels: width of the coarse cells.
        stride: cells per coarse cell, order z, y, x.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.stride = stride
        self.linear = RowLinear(in_channels * math.prod(stride), out_channels, bias=False)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        """Pool N voxels with C channels into M with `out_channels`."""
        cells = pool_cells(voxels, self.stride)
        slots = voxels.features.new_zeros(
            cells.num_cells * cells.volume, voxels.features.shape[1]
        ).index_copy(0, cells.row_of_voxel, voxels.features)
        pooled = self.norm(self.linear(slots.view(cells.num_cells, self.linear.in_features)))
        return _coarse(voxels, cells, pooled)


class AttentionPooling(nn.Module):
    """Attention of the slots' maximum over all slots of a coarse cell (DSVT, section 3.4).

    Empty slots are keys too: position embedding without feature, value the bias alone.  That is
    how the published weights were trained.  Only their scores are formed: no buffer of
    cells x slots x channels.

    Args:
        channels: width C, a multiple of `heads`.
        stride: cells per coarse cell, order z, y, x.
        heads: attention heads H.

    Raises:
        ValueError: C is no multiple of H.
    """

    def __init__(self, channels: int, stride: tuple[int, int, int], heads: int = 8) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(
                f"AttentionPooling: channels must be a multiple of its {heads} heads, "
                f"got {channels}"
            )
        self.stride = stride
        self.heads = heads
        self.position = nn.Parameter(torch.empty(math.prod(stride), channels))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        nn.init.xavier_uniform_(self.position)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        """Pool N voxels with C channels into M with C."""
        cells = pool_cells(voxels, self.stride)
        maximum = max_with_empty(voxels.features, cells)
        mixed = self._attend(maximum, voxels.features, cells)
        return _coarse(voxels, cells, self.norm(self.out(mixed) + maximum))

    def _attend(self, maximum: Tensor, features: Tensor, cells: PooledCells) -> Tensor:
        channels = features.shape[1]
        weight_q, weight_k, weight_v = self.qkv.weight.chunk(3)
        bias_q, bias_k, bias_v = self.qkv.bias.chunk(3)
        # key = W (feature + position) + b: the second part is the same for every cell.
        query = self._heads(linear(maximum, weight_q, bias_q))
        key_of_slot = self._heads(linear(self.position, weight_k, bias_k))
        key = self._heads(linear(features, weight_k))
        value = self._heads(linear(features, weight_v))
        with torch.autocast(features.device.type, enabled=False):
            scores = torch.einsum("mhd,vhd->mvh", query, key_of_slot).flatten(0, 1)
            own = (query[cells.cell_of_voxel] * key).sum(-1)
            row = cells.row_of_voxel
            scores = scores.index_add(0, row, own) / math.sqrt(channels // self.heads)
            weights = scores.view(cells.num_cells, cells.volume, self.heads).softmax(1)
            weighted = weights.flatten(0, 1)[row].unsqueeze(-1) * value
            mixed = segment_reduce(weighted.flatten(1), cells.order, cells.offsets, "sum")
            return mixed + bias_v.to(mixed.dtype)

    def _heads(self, rows: Tensor) -> Tensor:
        """Split (R, C) into (R, H, D), at least float32: softmax and sums stay exact under AMP."""
        rows = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        return rows.view(rows.shape[0], self.heads, rows.shape[1] // self.heads)
