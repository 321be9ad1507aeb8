"""DSVT's backbone in plain torch, as the published code computes it.

Index tables in torch operators, positions embedded for every voxel and layer, attention over padded
slots, pooling over dense blocks.  Source: Haiyang-W/DSVT: pcdet/models/backbones_3d/dsvt.py and
dsvt_input_layer.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perception3d.benchmark.peers.set_attention import official_module, official_style
from perception3d.benchmark.peers.set_partition import (
    Grid,
    official_style_sets,
    official_style_windows,
)
from perception3d.layers.attention import SetAttention, SetEncoderLayer
from perception3d.layers.pooling import AttentionPooling
from perception3d.layers.position import PositionEmbedding
from perception3d.models.backbones.dsvt import DSVT, DSVTBlock, DSVTStageModule
from perception3d.structures import SparseVoxels, WindowSpec

Cells = tuple[int, int, int]


@dataclass(frozen=True)
class _Partition:
    """Tables of one partition.

    Attributes:
        cells: (N, 3) cell x, y, z of each voxel in its window.
        rows: (2, sets, S) voxel of each slot, per sort order.
        repeated: (2, sets, S) bool, slots that are no key.
    """

    cells: Tensor
    rows: Tensor
    repeated: Tensor


class PlainDSVT:
    """The network with the weights of ours.

    Args:
        net: its weights are used, as they are at every call.
        fused: see `official_style`.
    """

    def __init__(self, net: DSVT, *, fused: bool = False) -> None:
        self.net, self.fused = net, fused
        self.attention = {
            layer: official_module(layer).eval()
            for layer in net.modules()
            if isinstance(layer, SetAttention | AttentionPooling)
        }

    def __call__(self, voxels: SparseVoxels) -> SparseVoxels:
        """Transform voxels."""
        for stage in self.net.stages:
            assert isinstance(stage, DSVTStageModule)
            voxels = self._stage(stage, voxels)
        return voxels

    def _stage(self, stage: DSVTStageModule, voxels: SparseVoxels) -> SparseVoxels:
        blocks = [block for block in stage.blocks if isinstance(block, DSVTBlock)]
        # Both partitions, whether the blocks of this stage use both or not.
        specs = blocks[0].position_windows
        tables = {spec: _partition(voxels, spec, blocks[0].set_size) for spec in specs}
        positions = [self._positions(block, tables) for block in blocks]
        features = voxels.features
        for block, embedded in zip(blocks, positions, strict=True):
            before, sets = features, tables[block.set_windows]
            for order, layer in enumerate(block.layers):
                assert isinstance(layer, SetEncoderLayer)
                slots = sets.rows[order], sets.repeated[order]
                features = self._layer(layer, features, embedded[order], *slots)
            features = block.norm(features + before)
        voxels = voxels.with_features(features)
        if stage.pooling is None:
            return voxels
        assert isinstance(stage.pooling, AttentionPooling)
        return self._pool(stage.pooling, voxels)

    def _positions(self, block: DSVTBlock, tables: dict[WindowSpec, _Partition]) -> list[Tensor]:
        found = []
        for module, spec in zip(block.positions, block.position_windows, strict=True):
            assert isinstance(module, PositionEmbedding)
            z, y, x = spec.size
            middle = torch.tensor([x, y, z], device=tables[spec].cells.device) / 2
            rows = (tables[spec].cells - middle)[:, : module.linear1.in_features]
            hidden = F.relu(module.norm(module.linear1(rows)))
            found.append(F.linear(hidden, module.linear2.weight, module.linear2.bias))
        return found

    def _layer(
        self,
        layer: SetEncoderLayer,
        features: Tensor,
        position: Tensor,
        rows: Tensor,
        repeated: Tensor,
    ) -> Tensor:
        inner = layer.inner
        module = self.attention[inner.attention]
        mixed = official_style(module, features, position, rows, repeated, fused=self.fused)
        attended = inner.norm1(features + mixed)
        hidden = F.gelu(F.linear(attended, inner.linear1.weight, inner.linear1.bias))
        hidden = F.linear(hidden, inner.linear2.weight, inner.linear2.bias)
        result: Tensor = layer.norm(inner.norm2(attended + hidden) + features)
        return result

    def _pool(self, layer: AttentionPooling, voxels: SparseVoxels) -> SparseVoxels:
        """Attend over dense blocks of slots, the empty ones holding zeros."""
        stride = torch.tensor(layer.stride, device=voxels.coords.device)
        coords, size = voxels.coords.long(), layer.stride
        cell, place = coords[:, 1:] // stride, coords[:, 1:] % stride
        grid = [-(-cells // step) for cells, step in zip(voxels.spatial_shape, size, strict=True)]
        key = (coords[:, 0] * grid[2] + cell[:, 2]) * grid[1] + cell[:, 1]
        found, row = torch.unique(key * grid[0] + cell[:, 0], return_inverse=True)
        slot = (place[:, 2] * size[1] + place[:, 1]) * size[0] + place[:, 0]
        dense = voxels.features.new_zeros(
            found.shape[0], layer.position.shape[0], voxels.features.shape[1]
        )
        dense[row, slot] = voxels.features
        query = dense.max(1, keepdim=True).values
        mixed, _ = self.attention[layer](query, dense + layer.position, dense)
        pooled = coords.new_empty((found.shape[0], 4))
        pooled[row] = torch.cat([coords[:, :1], cell], 1)
        return SparseVoxels(
            layer.norm(mixed + query)[:, 0],
            pooled.int(),
            (grid[0], grid[1], grid[2]),
            voxels.batch_size,
        )


def _partition(voxels: SparseVoxels, spec: WindowSpec, set_size: int) -> _Partition:
    grid = Grid(_xyz(voxels.spatial_shape), _xyz(spec.size), _xyz(spec.shift), set_size)
    windows, cells = official_style_windows(voxels.coords, grid)
    return _Partition(cells, *official_style_sets(windows, cells, grid))


def _xyz(zyx: Sequence[int]) -> Cells:
    z, y, x = zyx
    return x, y, z
