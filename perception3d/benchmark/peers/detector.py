"""DSVT's detector, points to boxes, as its published code runs where no GPU is.

Voxels by torch.unique, `PlainDSVT`, a dense network of convolutions, norms and activations one by
one on (B, C, H, W) memory, boxes in torch, suppression by polygons.
"""

import importlib.util
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception3d.benchmark.peers.boxes import torch_matrix_nms
from perception3d.benchmark.peers.dsvt import PlainDSVT
from perception3d.models.backbones.dsvt import DSVT
from perception3d.models.detector import Detector
from perception3d.models.encoders import PointLayer, VoxelEncoder
from perception3d.models.heads import CenterHead
from perception3d.models.heads.center_branches import (
    CenterBranches,
    CenterHeadOutput,
    ConvNorm,
    TaskOutput,
)
from perception3d.models.necks.bev import BevBackbone
from perception3d.models.necks.residual_block import ResidualBlock
from perception3d.ops.voxel_grid import voxel_grid_size
from perception3d.structures import Boxes3D, Detections, SparseVoxels


class PlainDetector:
    """The network with the weights of ours, for one frame.

    Args:
        net: VoxelEncoder on one layer of cells, DSVT, BevBackbone and a CenterHead of one task.
    """

    def __init__(self, net: Detector) -> None:
        assert isinstance(net.encoder, VoxelEncoder)
        assert isinstance(net.backbone, DSVT)
        assert isinstance(net.neck, BevBackbone)
        assert isinstance(net.head, CenterHead)
        self.encoder, self.neck, self.head = net.encoder, net.neck, net.head
        self.backbone = PlainDSVT(net.backbone, fused=True)

    @torch.no_grad()
    def predict(self, points: Tensor) -> Detections:
        """Turn points (P, F) into boxes."""
        return self.decode(self.maps(points))

    @torch.no_grad()
    def maps(self, points: Tensor) -> CenterHeadOutput:
        """Turn points (P, F) into the maps of the head."""
        bev = self._refine(_to_map(self.backbone(self._encode(points))))
        shared = _conv_norm(self.head.shared, bev)
        (task,) = self.head.branches
        assert isinstance(task, CenterBranches)
        found = {name: _branch(branch, shared) for name, branch in task.branches.items()}
        return CenterHeadOutput((TaskOutput(**found),))

    def _encode(self, points: Tensor) -> SparseVoxels:
        encoder = self.encoder
        nx, ny, nz = voxel_grid_size(encoder.voxel_size, encoder.point_cloud_range)
        size, low = points.new_tensor(encoder.voxel_size), encoder.point_cloud_range[:3]
        cells = torch.floor((points[:, :3] - points.new_tensor(low)) / size).long()
        inside = ((cells >= 0) & (cells < cells.new_tensor([nx, ny, nz]))).all(1)
        cells, points = cells[inside], points[inside]
        key = (cells[:, 0] * ny + cells[:, 1]) * nz + cells[:, 2]
        keys, voxel, counts = torch.unique(key, return_inverse=True, return_counts=True)
        xyz = points[:, :3]
        mean = xyz.new_zeros(keys.shape[0], 3).index_add_(0, voxel, xyz) / counts[:, None]
        center = cells * size + (size / 2 + points.new_tensor(low))
        rows = torch.cat([points, xyz - mean[voxel], xyz - center], 1)
        highest = rows
        for number, layer in enumerate(encoder.layers):
            assert isinstance(layer, PointLayer)
            rows = torch.cat([rows, highest[voxel]], 1) if number else rows
            rows = F.relu(layer.norm(F.linear(rows, layer.linear.weight)))
            index = voxel[:, None].expand_as(rows)
            highest = rows.new_zeros(keys.shape[0], rows.shape[1])
            highest = highest.scatter_reduce(0, index, rows, "amax")  # none is below zero
        coords = torch.stack([keys * 0, keys % nz, keys // nz % ny, keys // nz // ny], 1)
        return SparseVoxels(highest, coords.int(), (nz, ny, nx), 1)

    def _refine(self, bev: Tensor) -> Tensor:
        parts = []
        for level, resampler in zip(self.neck.levels, self.neck.resamplers, strict=True):
            assert isinstance(level, nn.Sequential)
            for block in level:
                assert isinstance(block, ResidualBlock)
                bev = _residual(block, bev)
            parts.append(_sequence(resampler, bev))
        return torch.cat(parts, 1)

    def decode(self, output: CenterHeadOutput) -> Detections:
        """Turn maps into boxes: the best cells of each class, then the best of those."""
        decoder, grid, task = self.head.decoder, self.head.grid, output.tasks[0]
        heat, cells = task.hm[0].sigmoid().flatten(1).topk(decoder.max_objects)
        scores, best = heat.flatten().topk(decoder.max_objects)
        labels, cells = best // heat.shape[1], cells.flatten()[best]
        maps = [*task.codes, *(() if task.iou is None else (task.iou,))]
        codes = torch.cat([part[0].flatten(1)[:, cells] for part in maps]).T
        place = torch.stack([cells % grid.size[0], cells // grid.size[0]], 1) + codes[:, :2]
        yaw = torch.atan2(codes[:, 7:8], codes[:, 6:7])
        boxes = torch.cat([grid.to_metres(place), codes[:, 2:3], codes[:, 3:6].exp(), yaw], 1)
        low, high = boxes.new_tensor(list(decoder.center_range)).view(2, 3)
        kept = ((boxes[:, :3] >= low) & (boxes[:, :3] <= high)).all(1)
        kept &= scores > decoder.score_threshold
        power = scores.new_tensor(decoder.iou_rectifier)[labels]
        iou = ((codes[:, -1] + 1) / 2).clamp(0, 1)
        scores = scores ** (1 - power) * iou**power
        # The suppression runs on the host.
        return self._suppress(*(rows[kept].cpu() for rows in (boxes, scores, labels)))

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        decoder = self.head.decoder
        assert isinstance(decoder.iou_threshold, Sequence)
        turned = boxes.clone()
        turned[:, 6] += decoder.footprint_turn
        kept = []
        for label, threshold in enumerate(decoder.iou_threshold):
            rows = (labels == label).nonzero()[:, 0]
            if len(rows):
                kept.append(rows[_nms(turned[rows], scores[rows], threshold)[: decoder.post_max]])
        rows = torch.cat([labels.new_zeros(0), *kept])
        unknown = boxes.new_full((len(rows), 2), torch.nan)  # velocity
        return Detections(Boxes3D(torch.cat([boxes[rows], unknown], 1)), scores[rows], labels[rows])


def _to_map(voxels: SparseVoxels) -> Tensor:
    _, height, width = voxels.spatial_shape
    canvas = voxels.features.new_zeros(voxels.features.shape[1], height * width)
    canvas[:, voxels.coords[:, 2].long() * width + voxels.coords[:, 3]] = voxels.features.T
    return canvas.view(1, -1, height, width)


def _residual(block: ResidualBlock, bev: Tensor) -> Tensor:
    inner = F.relu_(block.norm1(block.conv1(bev)))
    inner = block.norm2(block.conv2(inner))
    return F.relu_(inner.add_(_sequence(block.shortcut, bev)))


def _sequence(modules: nn.Module, bev: Tensor) -> Tensor:
    """Run convolutions, norms and activations one after the other."""
    for module in modules.children():
        bev = module(bev)
    return bev


def _conv_norm(layer: ConvNorm, bev: Tensor) -> Tensor:
    return F.relu_(layer.norm(layer.conv(bev)))


def _branch(branch: nn.Module, bev: Tensor) -> Tensor:
    for layer in branch.children():
        bev = _conv_norm(layer, bev) if isinstance(layer, ConvNorm) else layer(bev)
    return bev


def _nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """The fastest suppression of turned boxes on a CPU that is not ours."""
    if importlib.util.find_spec("shapely") is None:
        return torch_matrix_nms(boxes, scores, threshold)
    from perception3d.benchmark.peers.shapely_boxes import shapely_lazy_nms

    return shapely_lazy_nms(boxes, scores, threshold)
