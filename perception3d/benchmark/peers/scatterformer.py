"""ScatterFormer's backbone from plain torch and spconv, layer by layer as published.

What no library has is written in torch operators: attention by outer products that are summed per
window, depth-wise convolution by gather and scatter per tap, pillars padded to their height.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from perception3d.benchmark.peers.linear_attention import (
    SortedWindows,
    loop_over_splits,
    outer_products,
)
from perception3d.benchmark.peers.spconv_layers import Spconv, find_spconv
from perception3d.layers.sparse_conv import (
    SparseConv3d,
    SparseConvBlock,
    SparseResidualBlock,
    SubMConv3d,
)
from perception3d.models.backbones.scatterformer import (
    ScatterFormer,
    ScatterFormerLayer,
    ScatterFormerStage,
)
from perception3d.structures import SparseVoxels

Attention = Callable[[Tensor, Tensor, Tensor, SortedWindows], Tensor]
ATTENTIONS: dict[str, Attention] = {
    "torch + spconv": outer_products,
    "torch + spconv, loop over windows": loop_over_splits,
}


def plain_scatterformers(net: ScatterFormer) -> dict[str, Callable[[SparseVoxels], SparseVoxels]]:
    """Return the network in plain torch and spconv, by name; none where spconv is missing."""
    spconv = find_spconv(next(net.parameters()).device)
    if spconv is None:
        return {}
    return {name: _Plain(net, attend, spconv).run for name, attend in ATTENTIONS.items()}


class _Plain:
    """One network with the weights of ours."""

    def __init__(self, net: ScatterFormer, attend: Attention, spconv: Spconv) -> None:
        self.net, self.attend, self.spconv = net, attend, spconv
        self.layers = {
            name: spconv.layer(conv, "stem" if isinstance(conv, SubMConv3d) else None)
            for name, conv in net.named_modules()
            if isinstance(conv, SubMConv3d | SparseConv3d)
        }

    def run(self, voxels: SparseVoxels) -> SparseVoxels:
        """Run the network."""
        depth, height, width = voxels.spatial_shape
        tensor = self.spconv.module.SparseConvTensor(
            voxels.features, voxels.coords, [depth + 1, height, width], voxels.batch_size
        )
        tensor = self._stem(tensor)
        for number, stage in enumerate(self.net.stages):
            assert isinstance(stage, ScatterFormerStage)
            tensor = self._stage(tensor, number, stage)
        return self._pool(tensor)

    def _convolve(self, tensor: Any, name: str) -> Any:  # noqa: ANN401
        return self.layers[name](tensor)

    def _stem(self, tensor: Any) -> Any:  # noqa: ANN401
        stem = self.net.stem
        tensor = self._block(tensor, "stem.first", stem.first)
        for number, block in enumerate(stem.blocks):
            assert isinstance(block, SparseResidualBlock)
            name = f"stem.blocks.{number}"
            inner = self._convolve(tensor, f"{name}.conv1")
            inner = inner.replace_feature(F.relu(block.norm1(inner.features)))
            inner = self._convolve(inner, f"{name}.conv2")
            tensor = inner.replace_feature(F.relu(block.norm2(inner.features) + tensor.features))
        return self._block(tensor, "stem.down", stem.down)

    def _block(self, tensor: Any, name: str, block: SparseConvBlock) -> Any:  # noqa: ANN401
        tensor = self._convolve(tensor, f"{name}.conv")
        return tensor.replace_feature(F.relu(block.norm(tensor.features)))

    def _stage(self, tensor: Any, number: int, stage: ScatterFormerStage) -> Any:  # noqa: ANN401
        coords, size = tensor.indices, coords_divisor(tensor.indices, stage.window)
        _, window_of_row = torch.unique(coords[:, [0, 2, 3]] // size, dim=0, return_inverse=True)
        order = window_of_row.sort(stable=True).indices
        counts = torch.bincount(window_of_row)
        windows = SortedWindows(torch.cat([counts.new_zeros(1), counts.cumsum(0)]))
        coords, features = coords[order].contiguous(), tensor.features[order]
        pairs: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
        for layer in stage.layers:
            assert isinstance(layer, ScatterFormerLayer)
            find = partial(self._pairs, coords, tensor, pairs)
            features = self._mix(layer, features, windows, find)
        tensor = self.spconv.module.SparseConvTensor(
            stage.norm(features), coords, tensor.spatial_shape, tensor.batch_size
        )
        return tensor if stage.down is None else self._convolve(tensor, f"stages.{number}.down")

    def _pairs(
        self,
        coords: Tensor,
        tensor: Any,  # noqa: ANN401
        known: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]],
        kernel: tuple[int, ...],
    ) -> list[tuple[Tensor, Tensor]]:
        """Return spconv's pairs of a depth-wise kernel per tap: rows read, rows added to."""
        if kernel not in known:
            from spconv.core import ConvAlgo

            one, zero, padding = [1] * 3, [0] * 3, [size // 2 for size in kernel]
            _, table, counts = self.spconv.module.ops.get_indice_pairs(
                coords,
                tensor.batch_size,
                tensor.spatial_shape,
                ConvAlgo.Native,
                list(kernel),
                one,
                padding,
                one,
                zero,
                subm=True,
            )
            taps, middle = counts.tolist(), len(counts) // 2
            # spconv counts the first half: taps are symmetric, and every voxel meets itself.
            taps[middle + 1 :] = reversed(taps[:middle])
            own = torch.arange(coords.shape[0], device=coords.device)
            known[kernel] = [
                (own, own)
                if tap == middle
                else (table[0, tap, :count].long(), table[1, tap, :count].long())
                for tap, count in enumerate(taps)
            ]
        return known[kernel]

    def _mix(
        self,
        layer: ScatterFormerLayer,
        features: Tensor,
        windows: SortedWindows,
        find: Callable[[tuple[int, ...]], list[tuple[Tensor, Tensor]]],
    ) -> Tensor:
        attention, rows = layer.attention, features.shape[0]
        qkv = F.linear(layer.norm1(features), attention.qkv.weight)
        query, key, value = qkv.view(rows, 3, attention.heads, -1).unbind(1)
        mixed = self.attend(query, key, value, windows).flatten(1)
        features = features + F.linear(mixed, attention.out.weight, attention.out.bias)
        features = layer.norm2(features)
        parts = list(features.chunk(4, 1))
        for group, weight in enumerate((layer.conv.near, layer.conv.along_x, layer.conv.along_y)):
            taps = weight.flatten(0, 2)
            out = torch.zeros_like(parts[group])
            for (source, target), factor in zip(find(tuple(weight.shape[:3])), taps, strict=True):
                out.index_add_(0, target, parts[group][source] * factor)
            parts[group] = out
        features = features + torch.cat(parts, 1)
        inner = F.relu(F.linear(layer.norm3(features), layer.linear1.weight, layer.linear1.bias))
        return features + F.linear(inner, layer.linear2.weight, layer.linear2.bias)

    def _pool(self, tensor: Any) -> SparseVoxels:  # noqa: ANN401
        pooling, features, coords = self.net.pooling, tensor.features, tensor.indices.long()
        found, pillar = torch.unique(coords[:, [0, 2, 3]], dim=0, return_inverse=True)
        slots = (found.shape[0], pooling.position.shape[0])
        value = features.new_zeros((*slots, features.shape[1]))
        value[pillar, coords[:, 1]] = features
        absent = torch.ones(slots, dtype=torch.bool, device=coords.device)
        absent[pillar, coords[:, 1]] = False
        index = pillar[:, None].expand(-1, features.shape[1])
        query = value.new_zeros((slots[0], features.shape[1]))
        query = query.scatter_reduce(0, index, features, "amax")[:, None]
        mixed, _ = F.multi_head_attention_forward(
            query.transpose(0, 1),
            (value + pooling.position).transpose(0, 1),
            value.transpose(0, 1),
            features.shape[1],
            pooling.heads,
            pooling.qkv.weight,
            pooling.qkv.bias,
            None,
            None,
            False,
            0.0,
            pooling.out.weight,
            pooling.out.bias,
            training=False,
            key_padding_mask=absent,
            need_weights=False,
        )
        pooled = pooling.norm(mixed.transpose(0, 1) + query)[:, 0]
        zero = torch.zeros_like(found[:, :1])
        rows = torch.cat([found[:, :1], zero, found[:, 1:]], 1).int()
        shape = (1, *tensor.spatial_shape[1:])
        return SparseVoxels(pooled, rows, (shape[0], shape[1], shape[2]), tensor.batch_size)


def coords_divisor(coords: Tensor, window: tuple[int, int]) -> Tensor:
    """Return what (b, y, x) is divided by to number windows."""
    return coords.new_tensor([1, *window])
