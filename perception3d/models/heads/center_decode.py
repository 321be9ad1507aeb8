"""Predictions of a CenterHead to detections."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perception3d.models.heads.bev_grid import BevGrid
from perception3d.models.heads.center_branches import CenterHeadOutput, TaskOutput, gather_cells
from perception3d.models.heads.center_code import decode_codes
from perception3d.models.heads.class_tasks import ClassTasks
from perception3d.models.losses import full_precision
from perception3d.ops.rotated_nms import rotated_nms
from perception3d.structures import Boxes3D, Detections


@dataclass(frozen=True)
class CenterDecoder:
    """Picks the best cells, turns them into boxes and drops duplicates.

    Attributes:
        max_objects: best cells per task and frame.  (The best per class and then the best of
            these, as OpenPCDet does it, are the best of all.)
        score_threshold: heat map values must exceed it; looked at before scores are corrected.
        center_range: low and high corner (x, y, z, x, y, z) of the centres that are kept, m.
        iou_rectifier: exponent a in score^(1 - a) * iou^a with the predicted IoU, one for all
            classes or one per class in label order; None leaves scores alone.
        iou_threshold: of the rotated BEV NMS. One number: among all boxes of a task; one per
            class in label order: among the boxes of that class; None: no NMS.
        pre_max, post_max: boxes before and after the NMS, per task or per class; None: all.
        footprint_turn: the NMS looks at footprints that are turned in place by this angle, rad.
            -pi/2 reproduces Haiyang-W/DSVT's multi_class_nms, whose kernel does that by mistake
            and which the published Waymo figures include; their thresholds go with it.

    Raises:
        ValueError: a setting out of its range.
    """

    max_objects: int = 500
    score_threshold: float = 0.1
    center_range: Sequence[float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    iou_rectifier: float | Sequence[float] | None = None
    iou_threshold: float | Sequence[float] | None = 0.2
    pre_max: int | None = 1000
    post_max: int | None = 83
    footprint_turn: float = 0.0

    def __post_init__(self) -> None:
        if len(self.center_range) != 6:
            raise ValueError(
                "CenterDecoder: center_range must be (x, y, z, x, y, z), "
                f"got {tuple(self.center_range)}"
            )
        if self.max_objects < 1 or not math.isfinite(self.footprint_turn):
            raise ValueError(
                "CenterDecoder: max_objects must be >= 1 and footprint_turn finite, "
                f"got {self.max_objects} and {self.footprint_turn}"
            )

    def check_classes(self, num_classes: int) -> None:
        """Raise ValueError unless per-class settings have one entry per class."""
        for name in ("iou_rectifier", "iou_threshold"):
            value = getattr(self, name)
            if isinstance(value, Sequence) and len(value) != num_classes:
                raise ValueError(
                    f"CenterDecoder: {name} must be one number or one per class ({num_classes}), "
                    f"got {len(value)}"
                )

    def decode(
        self, output: CenterHeadOutput, tasks: ClassTasks, grid: BevGrid
    ) -> list[Detections]:
        """Return the detections of every frame, task after task, by descending score in a task."""
        parts: list[list[Detections]] = [[] for _ in range(output.batch_size)]
        for number, task in enumerate(output.tasks):
            labels = tasks.labels(number, task.hm.device)
            for frame in range(output.batch_size):
                parts[frame].append(self._decode_task(task, frame, labels, grid))
        return [_join(frame) for frame in parts]

    def _decode_task(
        self, task: TaskOutput, frame: int, labels: Tensor, grid: BevGrid
    ) -> Detections:
        heat = full_precision(task.hm[frame]).sigmoid()
        scores, best = top_values(heat.flatten(), self.max_objects)
        num_cells = heat[0].numel()
        cells = best % num_cells
        label = labels[best // num_cells]

        maps = [part[frame : frame + 1] for part in task.codes]
        codes = full_precision(gather_cells(maps, cells[None]))[0]
        velocity = (
            codes[:, 8:] if task.vel is not None else codes.new_full((len(codes), 2), torch.nan)
        )
        boxes = torch.cat([decode_codes(codes, cells, grid), velocity], dim=1)

        low, high = boxes.new_tensor(list(self.center_range)).view(2, 3)
        centers = boxes[:, :3]
        kept = (scores > self.score_threshold) & ((centers >= low) & (centers <= high)).all(dim=1)
        if task.iou is not None and self.iou_rectifier is not None:
            iou = full_precision(gather_cells([task.iou[frame : frame + 1]], cells[None]))[0, :, 0]
            scores = self._rectify(scores, iou, label)
        found = Detections(Boxes3D(boxes), scores, label).take(kept)
        return found.take(self._suppress(found))

    def _rectify(self, scores: Tensor, iou: Tensor, label: Tensor) -> Tensor:
        """Correct scores (K,) by the predicted IoU (K,), as 2 IoU - 1."""
        power = scores.new_tensor(self.iou_rectifier)
        if power.ndim:
            power = power[label]
        iou = ((iou + 1) / 2).clamp(0, 1)
        return scores ** (1 - power) * iou**power

    def _suppress(self, found: Detections) -> Tensor:
        """Return the rows that the NMS keeps, by descending score, ties by lower row."""
        order = found.scores.argsort(descending=True, stable=True)
        if self.iou_threshold is None:
            return order[: self.post_max]
        boxes = found.boxes.tensor[:, :7].clone()
        boxes[:, 6] += self.footprint_turn
        limits = {"pre_max": self.pre_max, "post_max": self.post_max}
        if not isinstance(self.iou_threshold, Sequence):
            return rotated_nms(boxes, found.scores, self.iou_threshold, **limits)
        kept = torch.zeros_like(found.labels, dtype=torch.bool)
        for label, threshold in enumerate(self.iou_threshold):
            rows = (found.labels == label).nonzero().squeeze(1)
            kept[rows[rotated_nms(boxes[rows], found.scores[rows], threshold, **limits)]] = True
        return order[kept[order]]


def top_values(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest values (K,), descending, and their places; ties by lower place.

    `torch.topk` alone leaves the order of ties open, and differs between CPU and GPU.
    """
    count = min(count, values.shape[0])
    least = values.topk(count).values[-1]
    places = (values >= least).nonzero().squeeze(1)
    ranked, order = values[places].sort(descending=True, stable=True)
    return ranked[:count], places[order[:count]]


def _join(parts: list[Detections]) -> Detections:
    return Detections(
        Boxes3D.cat([part.boxes for part in parts]),
        torch.cat([part.scores for part in parts]),
        torch.cat([part.labels for part in parts]),
    )
