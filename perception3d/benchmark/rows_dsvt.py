"""Benchmark rows of DSVT's backbones: pillars and voxels, Waymo."""

from functools import partial

import torch

from perception3d.benchmark.peers.dsvt import PlainDSVT
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.whole_backbone import Space, backbone_case, encoded_voxels, settled
from perception3d.benchmark.workloads import Workload
from perception3d.models.backbones.dsvt import DSVT
from perception3d.models.backbones.dsvt_stage import DSVTStage

OFFICIAL = "official style, torch"
CHANNELS = 192
EXTENT = (-74.88, -74.88, -2.0, 74.88, 74.88, 4.0)
# Haiyang-W/DSVT: tools/cfgs/dsvt_models/dsvt_plain_1f_onestage.yaml, dsvt_3D_1f_onestage.yaml
SPACES = {
    "dsvt_pillar_backbone": Space((0.32, 0.32, 6.0), EXTENT, raised=True),
    "dsvt_voxel_backbone": Space((0.32, 0.32, 0.1875), EXTENT, raised=True),
}
PILLAR_STAGES = (DSVTStage((12, 12, 1), 36, blocks=4),)
STAGES = {
    "dsvt_pillar_backbone": PILLAR_STAGES,
    "dsvt_voxel_backbone": (
        DSVTStage((12, 12, 32), 48, pool_stride=(1, 1, 4)),
        DSVTStage((12, 12, 8), 48, pool_stride=(1, 1, 4)),
        DSVTStage((12, 12, 2), 48, pool_stride=(1, 1, 2)),
        DSVTStage((12, 12, 1), 48),
    ),
}
AIMS = {"dsvt_pillar_backbone": (450.0, 0.6), "dsvt_voxel_backbone": (900.0, 1.0)}


def _case(op: str, workload: Workload) -> Case:
    torch.manual_seed(0)
    net = settled(DSVT(SPACES[op].grid_size, STAGES[op], CHANNELS, hybrid_factor=(2, 2, 1)))
    net = net.to(workload.device)
    voxels = encoded_voxels(workload, SPACES[op], CHANNELS)
    peers = {OFFICIAL: PlainDSVT(net), "official style, fused": PlainDSVT(net, fused=True)}
    return backbone_case(net, voxels, peers)


ROWS = tuple(
    Row(
        op,
        "waymo",
        partial(_case, op),
        ("tiny", "f1", "f10"),
        tolerance=1e-4,
        required={OFFICIAL: 2.5},
        required_cuda={OFFICIAL: 4.0},
        aim_ms=aim,
        aim_ms_cuda=aim_cuda,
    )
    for op, (aim, aim_cuda) in AIMS.items()
)
