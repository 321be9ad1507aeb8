"""Benchmark row of ScatterFormer's backbone."""

import torch

from perception3d.benchmark.peers.scatterformer import plain_scatterformers
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.whole_backbone import Space, backbone_case, encoded_voxels, settled
from perception3d.benchmark.workloads import Workload
from perception3d.models.backbones.scatterformer import ScatterFormer

# skyhehe123/ScatterFormer: tools/cfgs/nuscenes_models/scatterformer.yaml
SPACE = Space((0.3, 0.3, 0.2), (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0))


def _settled() -> ScatterFormer:
    """Return a net whose depth-wise weights have the sizes that they have once trained."""
    torch.manual_seed(0)
    net = settled(ScatterFormer(SPACE.grid_size, 64, 128, 20))
    generator = torch.Generator().manual_seed(0)
    for name, value in net.state_dict().items():
        if ".conv." in name and value.ndim == 4:
            value.copy_(torch.randn(value.shape, generator=generator) / 27)
    return net


def _scatterformer(workload: Workload) -> Case:
    net = _settled().to(workload.device)
    voxels = encoded_voxels(workload, SPACE, 64)
    return backbone_case(net, voxels, plain_scatterformers(net))


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
