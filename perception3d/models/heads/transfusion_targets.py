"""What a TransFusionHead should predict: a heat map, and one box per query, by assignment."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perception3d.models.heads.center_targets import UNKNOWN_VELOCITIES
from perception3d.models.heads.gaussian import draw_gaussians, gaussian_radius
from perception3d.models.heads.transfusion_branches import TransFusionOutput
from perception3d.models.heads.transfusion_code import QueryCode
from perception3d.ops.box_overlap import box_overlap
from perception3d.structures import Targets

# Focal loss, ICCV 2017: the cost of a class is the loss of saying it less that of not saying it.
_ALPHA = 0.25
_EPSILON = 1e-12
# Cost of what has no number, so that a network that has diverged is reported by its loss.
_NO_COST = 1e6


@dataclass(frozen=True)
class QueryTargets:
    """Targets of B frames with Q queries each.

    Attributes:
        heatmap: (B, C, H, W) float32, 1 exactly at the centre cell of each box on the map.
        labels: (B, Q) int64, class of the box of a query, C for a query without one.
        codes: (B, Q, 10) float32 of the box, see QueryCode; vx, vy NaN where unknown; zero without.
        mask: (B, Q) bool, queries that have a box.
        boxes: (B, Q, 9) float32, the boxes themselves; zero without.
        overlaps: (B, Q) float32, IoU of prediction and box as the assignment sees it; 0 without.
    """

    heatmap: Tensor
    labels: Tensor
    codes: Tensor
    mask: Tensor
    boxes: Tensor
    overlaps: Tensor


@dataclass(frozen=True)
class HungarianTargets:
    """Assigns boxes to queries at the least total cost, and draws heat maps.

    The cost of a pair has three terms: class, distance of the BEV centres as L1 in units of the
    range, and minus the 3-D IoU.  Each box gets one query, if there are enough.

    Attributes:
        class_cost, center_cost, iou_cost: weights of the terms.
        overlap, min_radius: of the Gaussians, see GaussianTargets.
        unknown_velocity: "ignore": no loss where the velocity is NaN; "zero": trained towards
            standing still, as OpenPCDet does.

    Raises:
        ValueError: a setting out of its range.
    """

    class_cost: float = 0.15
    center_cost: float = 0.25
    iou_cost: float = 0.25
    overlap: float = 0.1
    min_radius: int = 2
    unknown_velocity: str = "ignore"

    def __post_init__(self) -> None:
        if not 0 < self.overlap < 1 or self.min_radius < 0:
            raise ValueError(
                "HungarianTargets: overlap must lie in (0, 1) and min_radius be >= 0, "
                f"got {self.overlap} and {self.min_radius}"
            )
        if self.unknown_velocity not in UNKNOWN_VELOCITIES:
            raise ValueError(
                f"HungarianTargets: unknown_velocity must be one of {UNKNOWN_VELOCITIES}, "
                f"got {self.unknown_velocity!r}"
            )

    @torch.no_grad()
    def assign(
        self, output: TransFusionOutput, targets: Sequence[Targets], code: QueryCode
    ) -> QueryTargets:
        """Return the targets of an output.

        Boxes of no class, without size or with their centre beyond the map are left out.
        Differs: OpenPCDet assigns the last, too, and draws the part of their Gaussian on the map.

        Args:
            output: predictions of B frames.
            targets: one per frame, on the device of the output.
            code: box code of the head.
        """
        frames = [self._usable(frame, output.heatmap.shape[1], code) for frame in targets]
        predicted = code.decode(output.codes.float())
        logits = output.heatmap.float()
        parts = [
            self._assign_frame(predicted[number], logits[number], boxes, labels, code)
            for number, (boxes, labels) in enumerate(frames)
        ]
        columns = [torch.stack(column) for column in zip(*parts, strict=True)]
        return QueryTargets(self._draw(frames, logits.shape[1], code), *columns)

    def _usable(self, frame: Targets, num_classes: int, code: QueryCode) -> tuple[Tensor, Tensor]:
        """Return boxes (M, 9) float32 and labels (M,) of a frame that take part."""
        boxes = frame.boxes.tensor.float()
        cell = code.grid.to_cells(boxes[:, :2])
        usable = (frame.labels >= 0) & (frame.labels < num_classes)
        usable &= boxes[:, :7].isfinite().all(dim=1) & (boxes[:, 3:6] > 0).all(dim=1)
        usable &= ((cell >= 0) & (cell < cell.new_tensor(code.grid.size))).all(dim=1)
        boxes = boxes[usable]
        if self.unknown_velocity == "zero":
            boxes = torch.cat([boxes[:, :7], boxes[:, 7:].nan_to_num(0.0)], dim=1)
        return boxes, frame.labels[usable]

    def _assign_frame(
        self, predicted: Tensor, logits: Tensor, boxes: Tensor, labels: Tensor, code: QueryCode
    ) -> tuple[Tensor, ...]:
        """Return labels, codes, mask, boxes and overlaps of the Q queries of a frame."""
        from scipy.optimize import linear_sum_assignment  # prediction needs no SciPy

        num_classes, num_queries = logits.shape
        overlaps = bottom_iou(predicted, boxes)
        cost = self.costs(predicted, logits, boxes, labels, code, overlaps)
        rows, columns = linear_sum_assignment(cost.cpu().numpy())
        query = torch.as_tensor(rows, device=boxes.device)
        box = torch.as_tensor(columns, device=boxes.device)

        def table(values: Tensor, fill: float = 0) -> Tensor:
            shape = (num_queries, *values.shape[1:])
            return values.new_full(shape, fill).index_copy_(0, query, values[box])

        mask = torch.zeros(num_queries, dtype=torch.bool, device=boxes.device)
        mask[query] = True
        reached = boxes.new_zeros(num_queries)
        reached[query] = overlaps[query, box].to(reached.dtype)
        return table(labels, num_classes), table(code.encode(boxes)), mask, table(boxes), reached

    def costs(
        self,
        predicted: Tensor,
        logits: Tensor,
        boxes: Tensor,
        labels: Tensor,
        code: QueryCode,
        overlaps: Tensor,
    ) -> Tensor:
        """Return what it costs to give query q box m.

        Args:
            predicted: (Q, 9) boxes.
            logits: (C, Q) class logits.
            boxes: (M, 9).
            labels: (M,) int64.
            code: box code of the head, for the range.
            overlaps: (Q, M) IoU.

        Returns:
            (Q, M), finite.
        """
        p = logits.sigmoid()[labels].t()
        said = -(p + _EPSILON).log() * _ALPHA * (1 - p) ** 2
        unsaid = -(1 - p + _EPSILON).log() * (1 - _ALPHA) * p**2
        low, high = boxes.new_tensor(list(code.grid.point_cloud_range)).view(2, 3)[:, :2]
        offsets = (predicted[:, None, :2] - boxes[None, :, :2]) / (high - low)
        distance = offsets.abs().sum(dim=2)
        cost: Tensor = self.class_cost * (said - unsaid) + self.center_cost * distance
        cost = cost - self.iou_cost * overlaps
        return cost.nan_to_num(_NO_COST, _NO_COST, -_NO_COST)

    def _draw(
        self, frames: Sequence[tuple[Tensor, Tensor]], num_classes: int, code: QueryCode
    ) -> Tensor:
        """Return heat maps (B, C, H, W) of boxes on the map."""
        boxes = torch.cat([boxes for boxes, _ in frames])
        planes = [labels + number * num_classes for number, (_, labels) in enumerate(frames)]
        lengths = code.grid.sizes_in_cells(boxes[:, 3:5])
        radius = gaussian_radius(lengths[:, 0], lengths[:, 1], self.overlap).int()
        width, height = code.grid.size
        shape = (len(frames) * num_classes, height, width)
        cell = code.grid.to_cells(boxes[:, :2]).long()
        radius = radius.clamp(min=self.min_radius)
        maps = draw_gaussians(shape, torch.cat(planes), cell, radius)
        return maps.view(len(frames), num_classes, height, width)


def bottom_iou(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Return the 3-D IoU (A, B) of boxes (A, >= 7) and (B, >= 7) whose z counts as their bottom.

    OpenPCDet's assignment takes it so, for centres too: boxes of unlike height then overlap
    somewhat more or less than they do.
    """
    area = box_overlap(boxes_a, boxes_b)
    low = torch.maximum(boxes_a[:, None, 2], boxes_b[None, :, 2])
    top_a, top_b = boxes_a[:, 2] + boxes_a[:, 5], boxes_b[:, 2] + boxes_b[:, 5]
    shared = area * (torch.minimum(top_a[:, None], top_b[None]) - low).clamp(min=0)
    volume_a, volume_b = boxes_a[:, 3:6].prod(dim=1), boxes_b[:, 3:6].prod(dim=1)
    return (shared / (volume_a[:, None] + volume_b[None] - shared)).clamp(0, 1)
