"""Attentive pooling of the voxels of a pillar (ScatterFormer, ECCV 2024)."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from perception3d.layers.linear import RowLinear
from perception3d.ops.linear import linear
from perception3d.ops.segment_reduce import segment_reduce
from perception3d.structures import SparseVoxels, Windows, WindowSpec


class _PillarMaximum(torch.autograd.Function):
    """max(0, maximum of the pillar); every voxel equal to it gets the whole gradient.

    So does spconv's pooling, with which the published weights were trained; a pillar without a
    positive entry passes nothing on.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, windows: Windows) -> Tensor:  # noqa: ANN401  # torch's
        maximum = segment_reduce(features, windows.order, windows.offsets, "max").clamp_(min=0)
        ctx.save_for_backward(features, maximum)
        ctx.windows = windows
        return maximum

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401  # torch's
        features, maximum = ctx.saved_tensors
        pillar = ctx.windows.window_of_voxel
        return grads[0][pillar] * (features == maximum[pillar]), None


class PillarPooling(nn.Module):
    """One softmax attention per pillar: its maximum asks, its voxels answer.

    query = max(0, maximum over the voxels), key = feature + embedding of the height, value =
    feature; result = LayerNorm(attention + query).

    Args:
        channels: width C, a multiple of `heads`.
        height: cells of the grid in z.
        heads: attention heads H.

    Raises:
        ValueError: C is no multiple of H.
    """

    def __init__(self, channels: int, height: int, heads: int = 8) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(
                f"PillarPooling: channels must be a multiple of its {heads} heads, got {channels}"
            )
        self.heads = heads
        self.position = nn.Parameter(torch.empty(height, channels))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = RowLinear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        nn.init.normal_(self.position, std=0.01)
        # The initial state of nn.MultiheadAttention.
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        """Pool N voxels into M pillars, rows ascending by (b, y, x), on a grid of height 1.

        Raises:
            ValueError: the grid of the voxels is not `height` cells high.
        """
        height, rows, columns = voxels.spatial_shape
        if height != self.position.shape[0]:
            raise ValueError(
                f"PillarPooling: the grid must be {self.position.shape[0]} cells high, got {height}"
            )
        # Query, keys and values all follow this one index.
        pillars = voxels.windows(WindowSpec((height, 1, 1), axis_order="zyx"))
        query: Tensor = _PillarMaximum.apply(voxels.features, pillars)  # type: ignore[no-untyped-call]  # torch's
        mixed = self._attend(query, voxels, pillars)
        coords = voxels.coords[pillars.order[pillars.offsets[:-1]]]
        coords = coords * coords.new_tensor((1, 0, 1, 1))
        pooled = self.norm(self.out(mixed) + query)
        return SparseVoxels(pooled, coords, (1, rows, columns), voxels.batch_size)

    def _attend(self, maximum: Tensor, voxels: SparseVoxels, pillars: Windows) -> Tensor:
        features, height = voxels.features, self.position.shape[0]
        channels = features.shape[1]
        weight_q, weight_k, weight_v = self.qkv.weight.chunk(3)
        bias_q, bias_k, bias_v = self.qkv.bias.chunk(3)
        query = self._heads(linear(maximum, weight_q, bias_q))
        key = self._heads(linear(features, weight_k))
        value = self._heads(linear(features, weight_v))
        key_of_height = self._heads(linear(self.position, weight_k, bias_k))
        pillar, z = pillars.window_of_voxel, voxels.coords[:, 1].long()
        slot = pillar * height + z
        with torch.autocast(features.device.type, enabled=False):
            asked = query[pillar]
            own = (asked * (key + key_of_height[z])).sum(-1) / math.sqrt(channels // self.heads)
            # Absent slots stay at -inf: they are no keys.
            scores = own.new_full((pillars.num_windows * height, self.heads), -math.inf)
            scores = scores.index_copy(0, slot, own).view(pillars.num_windows, height, self.heads)
            weights = scores.softmax(1).flatten(0, 1)[slot]
            weighted = (weights.unsqueeze(-1) * value).flatten(1)
            mixed = segment_reduce(weighted, pillars.order, pillars.offsets, "sum")
            return mixed + bias_v.to(mixed.dtype)

    def _heads(self, rows: Tensor) -> Tensor:
        """Split (R, C) into (R, H, D), at least float32: softmax and sums stay exact under AMP."""
        rows = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        return rows.view(rows.shape[0], self.heads, rows.shape[1] // self.heads)
