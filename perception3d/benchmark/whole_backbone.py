"""Cases of whole backbones: from encoded voxels to what the neck takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from perception3d.benchmark.operator_flops import count_flops
from perception3d.benchmark.row import Case
from perception3d.benchmark.rows_voxels import relative_error
from perception3d.benchmark.workloads import Workload
from perception3d.models.voxelizer import Voxelizer
from perception3d.ops.voxel_grid import voxel_grid_size
from perception3d.structures import SparseVoxels

Cells = tuple[int, int, int]
Backbone = Callable[[SparseVoxels], SparseVoxels]
Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Space:
    """Grid of a published config.

    Attributes:
        voxel_size: x, y, z, m.
        extent: low and high corner x, y, z, m.
        raised: the origin is on the ground, not at the sensor.
    """

    voxel_size: tuple[float, float, float]
    extent: tuple[float, float, float, float, float, float]
    raised: bool = False

    @property
    def grid_size(self) -> Cells:
        """Cells x, y, z."""
        return voxel_grid_size(self.voxel_size, self.extent)

    def points(self, workload: Workload) -> Tensor:
        """Return the points in the frame of this grid."""
        return workload.raised() if self.raised else workload.points


def settled(net: Net) -> Net:
    """Return the net for evaluation, its running means off zero, as training leaves them."""
    generator = torch.Generator().manual_seed(0)
    for name, value in net.state_dict().items():
        if name.endswith("running_mean"):
            value.copy_(torch.randn(value.shape, generator=generator) / 10)
    return net.eval()


def encoded_voxels(workload: Workload, space: Space, channels: int) -> SparseVoxels:
    """Return the voxels of a frame with features as an encoder gives them: none below zero."""
    points = space.points(workload)
    frame = torch.zeros(points.shape[0], dtype=torch.int32, device=points.device)
    found = Voxelizer(space.voxel_size, space.extent).assign(points, frame, 1)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(found.num_voxels, channels, generator=generator).relu()
    return SparseVoxels(features.to(points.device), found.coords, found.spatial_shape, 1)


def backbone_case(net: nn.Module, voxels: SparseVoxels, peers: Mapping[str, Backbone]) -> Case:
    """Return the case of a backbone whose peers are whole networks with the same weights."""
    ours = partial(_run, net, voxels)
    wanted, flops = count_flops(ours)
    weights = sum(parameter.numel() for parameter in net.parameters())
    return Case(
        ours=ours,
        peers={name: partial(_run, peer, voxels) for name, peer in peers.items()},
        max_error=max([0.0, *(_difference(wanted, _run(peer, voxels)) for peer in peers.values())]),
        floor_bytes=4 * (weights + voxels.features.numel() + wanted.features.numel()),
        floor_flops=flops,
    )


@torch.no_grad()
def _run(backbone: Backbone, voxels: SparseVoxels) -> SparseVoxels:
    """Run on the voxels with an index cache that is empty, as in every new frame."""
    return backbone(
        SparseVoxels(voxels.features, voxels.coords, voxels.spatial_shape, voxels.batch_size)
    )


def _difference(ours: SparseVoxels, theirs: SparseVoxels) -> float:
    """Return the largest relative error of features, rows matched by their cells."""
    orders = [_by_cell(voxels.coords) for voxels in (ours, theirs)]
    cells, others = (v.coords[o] for v, o in zip((ours, theirs), orders, strict=True))
    if not torch.equal(cells, others):
        return float("inf")
    return relative_error(ours.features[orders[0]], theirs.features[orders[1]])


def _by_cell(coords: Tensor) -> Tensor:
    """Return the order of rows (b, z, y, x) that sorts them."""
    key = coords.new_zeros(coords.shape[0], dtype=torch.int64)
    for column in coords.long().unbind(1):
        key = key * (int(column.max()) + 1 if column.numel() else 1) + column
    return key.argsort()
