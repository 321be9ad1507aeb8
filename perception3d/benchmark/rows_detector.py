"""Benchmark row of a whole detector: DSVT on pillars, Waymo, points to boxes.

Right is what has the maps of the peer and, from maps that are drawn, its boxes.  Boxes of the two
networks may differ where scores are as good as equal, which they are wherever no voxel is near.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from perception3d.benchmark.operator_flops import count_flops
from perception3d.benchmark.peers.detector import PlainDetector
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.rows_dsvt import CHANNELS, PILLAR_STAGES
from perception3d.benchmark.rows_voxels import relative_error
from perception3d.benchmark.whole_backbone import settled
from perception3d.benchmark.workloads import Workload
from perception3d.models.backbones.dsvt import DSVT
from perception3d.models.detector import Detector
from perception3d.models.encoders import VoxelEncoder
from perception3d.models.heads import BevGrid, CenterDecoder, CenterHead, CenterLayers
from perception3d.models.heads.center_branches import CenterHeadOutput, TaskOutput
from perception3d.models.necks.bev import BevBackbone
from perception3d.models.voxelizer import Voxelizer
from perception3d.structures import Batch, Detections

OFFICIAL = "official parts, torch"
VOXEL_SIZE = (0.32, 0.32, 6.0)
HALF_WIDTH = 74.88
HALF_WIDTH_TINY = 19.2  # m; the dense network takes as long for few voxels as for many


def _detector(half: float) -> Detector:
    """Return the network of Haiyang-W/DSVT: dsvt_plain_1f_onestage.yaml, within +-half m."""
    extent = (-half, -half, -2.0, half, half, 4.0)
    voxelizer = Voxelizer(VOXEL_SIZE, extent)
    decoder = CenterDecoder(
        center_range=(-80, -80, -10, 80, 80, 10),
        iou_rectifier=(0.68, 0.71, 0.65),
        iou_threshold=(0.7, 0.6, 0.55),
        pre_max=4096,
        post_max=500,
        footprint_turn=-torch.pi / 2,
    )
    head = CenterHead(
        384,
        ("Vehicle", "Pedestrian", "Cyclist"),
        BevGrid(VOXEL_SIZE, extent),
        layers=CenterLayers(velocity=False, iou=True),
        decoder=decoder,
    )
    return Detector(
        voxelizer,
        VoxelEncoder(VOXEL_SIZE, extent, 5, (CHANNELS, CHANNELS)),
        DSVT(voxelizer.grid_size, PILLAR_STAGES, CHANNELS, hybrid_factor=(2, 2, 1)),
        BevBackbone(CHANNELS),
        head,
    )


def _batch(workload: Workload) -> Batch:
    """Return the frame in Waymo's columns: x, y, z, tanh of intensity, tanh of elongation."""
    points = workload.raised()
    points[:, 3:] = points[:, 3:].tanh()
    frame = torch.zeros(len(points), dtype=torch.int32, device=points.device)
    pose = torch.eye(4, dtype=torch.float64, device=points.device)[None]
    return Batch((workload.name,), points, frame, pose, pose)


@torch.no_grad()
def _find_objects(net: Detector, output: CenterHeadOutput) -> CenterHeadOutput:
    """Let as many cells as the decoder looks at pass its threshold, and return the maps.

    A net that was never trained finds all or nothing.
    """
    (task,) = output.tasks
    decoder, last = net.head.decoder, list(net.head.branches[0].branches["hm"].children())[-1]
    level = task.hm.flatten().topk(decoder.max_objects + 1).values[-1]
    step = torch.logit(torch.tensor(decoder.score_threshold)) - level
    last.bias += step
    return CenterHeadOutput((replace(task, hm=task.hm + step),))


def _case(workload: Workload) -> Case:
    torch.manual_seed(0)
    half = HALF_WIDTH_TINY if workload.name == "tiny" else HALF_WIDTH
    net, batch = settled(_detector(half)).to(workload.device), _batch(workload)
    ours, peer = torch.no_grad()(partial(net.predict, batch)), PlainDetector(net)
    output, flops = count_flops(torch.no_grad()(partial(net, batch)))
    output = _find_objects(net, output)
    theirs = peer.maps(batch.points)
    drawn = _drawn(output)
    errors = [
        *map(relative_error, _maps(output), _maps(theirs)),
        _box_error(net.head.decode(drawn)[0], peer.decode(drawn)),
    ]
    weights = sum(parameter.numel() for parameter in net.parameters())
    return Case(
        ours=ours,
        peers={OFFICIAL: partial(peer.predict, batch.points)},
        max_error=max(errors),
        floor_bytes=4 * (weights + batch.points.numel()),
        floor_flops=flops,
    )


def _drawn(output: CenterHeadOutput) -> CenterHeadOutput:
    """Return random maps of the same sizes, the best cells in clusters as around objects."""
    (task,) = output.tasks
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(task.hm.device)

    _, classes, height, width = task.hm.shape
    coarse = normal(1, classes, height // 4, width // 4)
    drawn = {
        name: normal(1, channels, height, width) / 2
        for name, channels in CenterLayers(velocity=False, iou=True)
        .channels_of_branch(classes)
        .items()
    }
    drawn["hm"] += 2 * torch.nn.functional.interpolate(coarse, (height, width)) - 4
    drawn["dim"] += 1  # of 2.7 m
    return CenterHeadOutput((TaskOutput(**drawn),))


def _maps(output: CenterHeadOutput) -> list[Tensor]:
    (task,) = output.tasks
    assert task.iou is not None
    return [*task.codes, task.iou, task.hm]


def _box_error(ours: Detections, theirs: Detections) -> float:
    """Return the largest relative error of boxes and scores; the peer lists them by class."""
    rows = []
    for found in (ours, theirs):
        table = torch.cat([found.boxes.tensor[:, :7], found.scores[:, None]], 1).cpu()
        order = found.scores.cpu().argsort(descending=True, stable=True)
        rows.append(table[order[found.labels.cpu()[order].argsort(stable=True)]])
    return relative_error(*rows) if len(ours) else float("inf")


ROWS = (
    Row(
        "dsvt_pillar_detector",
        "waymo",
        _case,
        ("tiny", "f1", "f10"),
        tolerance=1e-3,
        required={OFFICIAL: 1.5},
        required_cuda={OFFICIAL: 2.0},
        aim_ms=2700.0,
        aim_ms_cuda=4.0,
    ),
)
