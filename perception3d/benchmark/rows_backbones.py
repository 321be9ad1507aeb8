"""Benchmark rows of whole backbones, from encoded voxels to what the neck takes."""

from functools import partial

import torch
from torch import Tensor

from perception3d.benchmark.peers.scatterformer import plain_scatterformers
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.rows_voxels import relative_error
from perception3d.benchmark.workloads import Workload
from perception3d.models.backbones.scatterformer import ScatterFormer
from perception3d.models.voxelizer import Voxelizer
from perception3d.structures import SparseVoxels

# skyhehe123/ScatterFormer: tools/cfgs/nuscenes_models/scatterformer.yaml
VOXEL_SIZE = (0.3, 0.3, 0.2)
EXTENT = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
GRID = (360, 360, 40)


def _settled(net: ScatterFormer, seed: int) -> ScatterFormer:
    """Give depth-wise weights and running statistics the sizes that they have once trained."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if ".conv." in name and value.ndim == 4:
            value.copy_(torch.randn(value.shape, generator=generator) / 27)
        elif name.endswith("running_mean"):
            value.copy_(torch.randn(value.shape, generator=generator) / 10)
    return net.eval()


def _voxels(workload: Workload, channels: int) -> SparseVoxels:
    points = workload.points
    frame = torch.zeros(points.shape[0], dtype=torch.int32, device=points.device)
    found = Voxelizer(VOXEL_SIZE, EXTENT).assign(points, frame, 1)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(found.num_voxels, channels, generator=generator).relu()
    return SparseVoxels(features.to(points.device), found.coords, found.spatial_shape, 1)


@torch.no_grad()
def _run(net: ScatterFormer, voxels: SparseVoxels) -> Tensor:
    fresh = SparseVoxels(voxels.features, voxels.coords, voxels.spatial_shape, voxels.batch_size)
    result: Tensor = net(fresh).features  # with an empty index cache
    return result


def _scatterformer(workload: Workload) -> Case:
    torch.manual_seed(0)
    net = _settled(ScatterFormer(GRID, 64, 128, 20), 0).to(workload.device)
    voxels = _voxels(workload, 64)
    ours = _run(net, voxels)
    plain = plain_scatterformers(net)
    errors = [0.0]
    with torch.no_grad():
        for peer in plain.values():
            theirs = peer(voxels)
            assert torch.equal(theirs.coords, net(voxels).coords)
            errors.append(relative_error(ours, theirs.features))
    weights = sum(parameter.numel() for parameter in net.parameters())
    return Case(
        ours=partial(_run, net, voxels),
        peers={name: torch.no_grad()(partial(peer, voxels)) for name, peer in plain.items()},
        max_error=max(errors),
        floor_bytes=4 * (weights + voxels.features.numel() + ours.numel()),
    )


ROWS = (
    Row(
        "scatterformer_backbone",
        "nuscenes",
        _scatterformer,
        ("tiny", "f1", "f10"),
        tolerance=1e-4,
        required={"torch + spconv": 3.0},
        aim_ms=800.0,
    ),
)
