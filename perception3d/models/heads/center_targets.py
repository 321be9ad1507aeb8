"""What a CenterHead should predict: Gaussian heat maps and box codes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perception3d.models.heads.bev_grid import BevGrid
from perception3d.models.heads.class_tasks import ClassTasks
from perception3d.models.heads.gaussian import draw_gaussians, gaussian_radius
from perception3d.structures import Targets

UNKNOWN_VELOCITIES = ("ignore", "zero")


@dataclass(frozen=True)
class TaskTargets:
    """Targets of one task for B frames; every box has a slot, S slots per frame.

    Attributes:
        heatmap: (B, K, H, W) float32, 1 exactly at the centre cell of each box.
        codes: (B, S, 8 or 10) float32 [x, y offset in the cell, z m, log dx, log dy, log dz,
            cos yaw, sin yaw(, vx, vy m/s, NaN where unknown)]; zero without a box.
        cells: (B, S) int64, y * W + x of the centre cell.
        mask: (B, S) bool, slots that count: boxes of finite place and positive size.
        boxes: (B, S, 9) float32, the boxes themselves, columns as in Boxes3D.
        channels: (B, S) int64, class within the task.
    """

    heatmap: Tensor
    codes: Tensor
    cells: Tensor
    mask: Tensor
    boxes: Tensor
    channels: Tensor


@dataclass(frozen=True)
class GaussianTargets:
    """Draws targets as open-mmlab/OpenPCDet: pcdet/models/dense_heads/center_head.py does.

    Attributes:
        overlap: IoU that a box shifted by the radius of its Gaussian still has.
        min_radius: smallest radius, cells.
        max_objects: slots per frame and task; further boxes are dropped.
        unknown_velocity: "ignore": no loss where the velocity is NaN; "zero": trained towards
            standing still, as OpenPCDet does.

    Raises:
        ValueError: a setting out of its range.
    """

    overlap: float = 0.1
    min_radius: int = 2
    max_objects: int = 500
    unknown_velocity: str = "ignore"

    def __post_init__(self) -> None:
        if not 0 < self.overlap < 1 or self.min_radius < 0 or self.max_objects < 1:
            raise ValueError(
                "GaussianTargets: overlap must lie in (0, 1), min_radius >= 0, max_objects >= 1, "
                f"got {self.overlap}, {self.min_radius}, {self.max_objects}"
            )
        if self.unknown_velocity not in UNKNOWN_VELOCITIES:
            raise ValueError(
                f"GaussianTargets: unknown_velocity must be one of {UNKNOWN_VELOCITIES}, "
                f"got {self.unknown_velocity!r}"
            )

    def assign(
        self, targets: Sequence[Targets], tasks: ClassTasks, grid: BevGrid, *, velocity: bool
    ) -> list[TaskTargets]:
        """Return the targets of every task.

        Args:
            targets: one per frame, on one device; labels outside 0..C-1 are left out.
            tasks: classes of the head.
            grid: map of the head.
            velocity: codes contain vx, vy.
        """
        boxes = torch.cat([frame.boxes.tensor for frame in targets]).float()
        slots = find_slots(targets, tasks, self.max_objects)
        usable = boxes[:, :7].isfinite().all(dim=1) & (boxes[:, 3:6] > 0).all(dim=1)
        # Row numbers from here on: the two waits of a GPU for its masks.
        drawn = (slots.placed & usable).nonzero().squeeze(1)
        placed = slots.placed.nonzero().squeeze(1)
        unit = boxes.new_tensor([0, 0, 0, 1, 1, 1, 0, 0, 0])
        safe = torch.where(usable[:, None], boxes, unit)
        cell, codes = self._encode(safe, grid, velocity)
        columns = (
            slots.table(codes, drawn),
            slots.table(cell[:, 1] * grid.size[0] + cell[:, 0], drawn),
            slots.table(usable, drawn),
            slots.table(boxes, placed),
            slots.table(slots.channel, placed),
        )
        first = torch.tensor(tasks.first_channels(), device=boxes.device)
        plane = slots.frame * tasks.num_classes + first[slots.task] + slots.channel
        radius = self._radius(safe, grid)
        width, height = grid.size
        planes = (len(targets) * tasks.num_classes, height, width)
        heatmaps = draw_gaussians(planes, plane[drawn], cell[drawn], radius[drawn])
        heatmaps = heatmaps.view(len(targets), tasks.num_classes, height, width)
        sizes = [len(names) for names in tasks.tasks]
        return [
            TaskTargets(heatmap, *(column[:, number] for column in columns))
            for number, heatmap in enumerate(torch.split(heatmaps, sizes, dim=1))
        ]

    def _radius(self, boxes: Tensor, grid: BevGrid) -> Tensor:
        """Return the radius (M,) int32 of the Gaussians of boxes (M, 9), cells."""
        lengths = grid.sizes_in_cells(boxes[:, 3:5])
        radius = gaussian_radius(lengths[:, 0], lengths[:, 1], self.overlap)
        return radius.int().clamp(min=self.min_radius)

    def _encode(self, boxes: Tensor, grid: BevGrid, velocity: bool) -> tuple[Tensor, Tensor]:
        """Return centre cells (M, 2) int64 x, y and codes (M, 8 or 10) of boxes (M, 9)."""
        place = grid.to_cells(boxes[:, :2]).clamp(min=0)
        # Boxes beyond the border belong to the cell at it; half a cell keeps float32 inside.
        place = torch.minimum(place, place.new_tensor(grid.size) - 0.5)
        cell = place.long()
        yaw = boxes[:, 6:7]
        parts = [place - cell, boxes[:, 2:3], boxes[:, 3:6].log(), yaw.cos(), yaw.sin()]
        if velocity:
            unknown_is_zero = self.unknown_velocity == "zero"
            parts.append(boxes[:, 7:9].nan_to_num(0.0) if unknown_is_zero else boxes[:, 7:9])
        return cell, torch.cat(parts, dim=1)


@dataclass(frozen=True)
class Slots:
    """Place of each of M boxes in tables with S rows per frame and task.

    Attributes:
        shape: frames, tasks, S.
        frame, task, channel: (M,) int64; task and channel are 0 for labels that are no class.
        row: (M,) int64, row in a table of all frames and tasks.
        placed: (M,) bool, whether the box has a row.
    """

    shape: tuple[int, int, int]
    frame: Tensor
    task: Tensor
    channel: Tensor
    row: Tensor
    placed: Tensor

    def table(self, values: Tensor, chosen: Tensor) -> Tensor:
        """Lay the chosen of (M, ...) rows out as (B, tasks, S, ...); zero where there is none."""
        rows = values.new_zeros(math.prod(self.shape), *values.shape[1:])
        rows[self.row[chosen]] = values[chosen]
        return rows.view(*self.shape, *values.shape[1:])


def find_slots(targets: Sequence[Targets], tasks: ClassTasks, max_objects: int) -> Slots:
    """Give the boxes of each frame and task slots in input order, `max_objects` at most."""
    labels = torch.cat([frame.labels for frame in targets])
    device, num_frames, num_tasks = labels.device, len(targets), len(tasks.tasks)
    frame = torch.cat(
        [torch.full((len(part),), number, device=device) for number, part in enumerate(targets)]
    )
    task_of_label, channel_of_label = tasks.task_and_channel(device)
    known = (labels >= 0) & (labels < tasks.num_classes)
    label = torch.where(known, labels, 0)
    task, channel = task_of_label[label], channel_of_label[label]
    # What is no class forms a group of its own, behind the others.
    num_groups = num_frames * num_tasks
    group = torch.where(known, frame * num_tasks + task, num_groups)
    slot = rank_in_group(group, num_groups + 1)
    # A bound on the slots that are used, known without asking a GPU.
    num_slots = min(max_objects, max(len(part) for part in targets))
    return Slots(
        (num_frames, num_tasks, num_slots),
        frame,
        task,
        channel,
        group * num_slots + slot,
        known & (slot < num_slots),
    )


def rank_in_group(group: Tensor, num_groups: int) -> Tensor:
    """Return how many earlier rows have the same group, (M,) int64, for groups (M,) int64."""
    order = group.argsort(stable=True)
    counts = torch.zeros(num_groups, dtype=torch.int64, device=group.device)
    counts.index_add_(0, group, torch.ones_like(group))
    starts = counts.cumsum(0) - counts
    place = torch.arange(group.shape[0], device=group.device) - starts[group[order]]
    return torch.empty_like(group).index_copy_(0, order, place)
