"""Voxel Mamba's backbone from plain torch and spconv, as published.

Frame after frame and scan after scan: sort along the curve, walk the sorted copy, sort back.
Source: gwenzhang/Voxel-Mamba: pcdet/models/backbones_3d/voxel_mamba_waymo.py.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from perception3d.benchmark.peers.selective_scan import ScanInputs, conv1d
from perception3d.benchmark.peers.spconv_layers import Conv, Spconv, SpconvLayer
from perception3d.layers.sparse_conv import SparseConvBlock
from perception3d.layers.state_space import StateSpaceBlock
from perception3d.models.backbones.voxel_mamba import DualScaleBlock, VoxelMamba
from perception3d.ops import curve_index
from perception3d.structures import CurveSpec, SparseVoxels

Scan = Callable[[ScanInputs], Tensor]


class PlainVoxelMamba:
    """The network with the weights of ours.

    Args:
        net: its weights are used.
        scan: walks one sequence.
        spconv: convolves.
    """

    def __init__(self, net: VoxelMamba, scan: Scan, spconv: Spconv) -> None:
        self.net, self.scan, self.spconv = net, scan, spconv
        self.layers: dict[object, SpconvLayer] = {}
        for number, block in enumerate(net.blocks):
            assert isinstance(block, DualScaleBlock)
            # Pairs are found once per block, as published; spconv shares no strided ones.
            self._add(block.local.conv, f"local {number}")
            self._add(block.up.conv, f"{'local' if block.down is None else 'down'} {number}")
            if block.down is not None:
                self._add(block.down.conv, f"down {number}")
        for reduction in (*net.reductions, net.extra_reduction):
            if isinstance(reduction, SparseConvBlock):
                self._add(reduction.conv)

    def _add(self, conv: Any, key: str | None = None) -> None:  # noqa: ANN401
        known: Conv = conv
        self.layers[conv] = self.spconv.layer(known, key)

    def __call__(self, voxels: SparseVoxels) -> SparseVoxels:
        """Transform voxels."""
        net, blocks = self.net, iter(self.net.blocks)
        depth, height, width = voxels.spatial_shape
        shape = (depth + 1, height, width)
        tensor = self.spconv.tensor(
            SparseVoxels(voxels.features, voxels.coords, shape, voxels.batch_size)
        )
        for stage, count in enumerate(net.blocks_per_stage):
            for _ in range(count):
                block = next(blocks)
                assert isinstance(block, DualScaleBlock)
                tensor = self._block(block, tensor)
            last = stage == len(net.blocks_per_stage) - 1
            if last and net.extra_reduction is not None:
                tensor = self._convolve(net.extra_reduction, tensor)
            tensor = self._convolve(net.reductions[stage], tensor)
        shape = tuple(tensor.spatial_shape)
        return SparseVoxels(tensor.features, tensor.indices, shape, tensor.batch_size)

    def _convolve(self, block: Any, tensor: Any) -> Any:  # noqa: ANN401
        out = self.layers[block.conv](tensor)
        return out.replace_feature(F.relu(block.norm(out.features)))

    def _block(self, block: DualScaleBlock, tensor: Any) -> Any:  # noqa: ANN401
        coarse = tensor if block.down is None else self._convolve(block.down, tensor)
        local = self.layers[block.local.conv](coarse)
        features = F.relu(block.local.norm(local.features) + coarse.features)
        coarse = local.replace_feature(features)
        walked = self._walk(block.coarse_scan, coarse, block.coarse_curve)
        coarse = coarse.replace_feature(block.coarse_norm(walked))
        full = block.fine_norm(self._walk(block.fine_scan, tensor, block.fine_curve))
        up = self._convolve(block.up, coarse)
        return up.replace_feature(block.norm(up.features + full + tensor.features))

    def _walk(self, block: StateSpaceBlock, tensor: Any, curve: CurveSpec) -> Tensor:  # noqa: ANN401
        rows = tensor.features + self._positions(tensor)
        found = torch.zeros_like(rows)
        for frame in range(tensor.batch_size):
            own = tensor.indices[:, 0] == frame
            place = curve_index(
                tensor.indices[own], curve.rank, shift=curve.shift, curve=curve.kind
            )
            order = torch.argsort(place)
            sequence = rows[own][order]
            sequence = sequence.flip(0) if block.reverse else sequence
            mixed = mix(block, self.scan, sequence)
            mixed = mixed.flip(0) if block.reverse else mixed
            found[own] = mixed[torch.argsort(order)]
        return found

    def _positions(self, tensor: Any) -> Tensor:  # noqa: ANN401
        module = self.net.position
        depth, height, _ = tensor.spatial_shape
        size, count = module.window, height // module.window + 1
        cells = tensor.indices[:, 2:]
        columns = [tensor.indices[:, 1:2] / depth]
        for shifted in (cells, cells + size // 2):
            columns += [shifted // size / count, shifted % size / size]
        hidden = F.linear(torch.cat(columns, 1), module.linear1.weight, module.linear1.bias)
        hidden = F.relu(module.norm(hidden))
        return F.linear(hidden, module.linear2.weight, module.linear2.bias)


def mix(block: StateSpaceBlock, scan: Scan, rows: Tensor) -> Tensor:
    """Mamba on one sequence (L, C), with the weights of ours."""
    rows = F.rms_norm(rows, rows.shape[1:], block.norm.weight, block.norm.eps)
    inside, gate = F.linear(rows, block.in_proj.weight).chunk(2, 1)
    by_channel = inside.T.contiguous()[None]
    inside = conv1d(by_channel, block.conv.weight[:, 0], block.conv.bias)[0].T.contiguous()
    rows = F.linear(inside, block.x_proj.weight)
    low_rank, into, out_of = torch.split(rows, list(block.splits), 1)
    scanned = scan(
        ScanInputs(
            u=inside,
            delta=F.linear(low_rank, block.step_proj.weight),
            A=-torch.exp(block.A_log),
            B=into,
            C=out_of,
            skip=block.skip,
            gate=gate,
            delta_bias=block.step_proj.bias,
        )
    )
    return F.linear(scanned, block.out_proj.weight)
