"""What a CenterHead should predict: Gaussian heat maps and box codes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perception3d.models.heads.bev_grid import BevGrid
from perception3d.models.heads.class_tasks import ClassTasks
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
        labels = torch.cat([frame.labels for frame in targets])
        device, num_frames, num_tasks = boxes.device, len(targets), len(tasks.tasks)
        frame = torch.cat(
            [torch.full((len(part),), number, device=device) for number, part in enumerate(targets)]
        )
        task_of_label, channel_of_label = tasks.task_and_channel(device)
        known = (labels >= 0) & (labels < tasks.num_classes)
        label = torch.where(known, labels, 0)
        task, channel = task_of_label[label], channel_of_label[label]

        # Tables have num_slots rows per (frame, task); what has no place is in a group of its own.
        num_groups = num_frames * num_tasks
        num_slots = min(self.max_objects, max(len(part) for part in targets))
        group = torch.where(known, frame * num_tasks + task, num_groups)
        slot = rank_in_group(group, num_groups + 1)
        placed = known & (slot < num_slots)
        row = group * num_slots + slot

        usable = boxes[:, :7].isfinite().all(dim=1) & (boxes[:, 3:6] > 0).all(dim=1)
        # Row numbers from here on: the two waits of a GPU for its masks.
        drawn = (placed & usable).nonzero().squeeze(1)
        placed = placed.nonzero().squeeze(1)
        unit = boxes.new_tensor([0, 0, 0, 1, 1, 1, 0, 0, 0])
        safe = torch.where(usable[:, None], boxes, unit)
        cell, codes = self._encode(safe, grid, velocity)

        width, height = grid.size
        first = torch.tensor(tasks.first_channels(), device=device)
        plane = frame * tasks.num_classes + first[task] + channel
        lengths = grid.sizes_in_cells(safe[:, 3:5])
        radius = gaussian_radius(lengths[:, 0], lengths[:, 1], self.overlap)
        radius = radius.int().clamp(min=self.min_radius)
        planes = (num_frames * tasks.num_classes, height, width)
        heatmaps = draw_gaussians(planes, plane[drawn], cell[drawn], radius[drawn])
        heatmaps = heatmaps.view(num_frames, tasks.num_classes, height, width)

        def table(values: Tensor, chosen: Tensor) -> Tensor:
            """Lay chosen rows out as (B, tasks, S, ...); zero where there is none."""
            rows = values.new_zeros(num_groups * num_slots, *values.shape[1:])
            rows[row[chosen]] = values[chosen]
            return rows.view(num_frames, num_tasks, num_slots, *values.shape[1:])

        columns = (
            table(codes, drawn),
            table(cell[:, 1] * width + cell[:, 0], drawn),
            table(usable, drawn),
            table(boxes, placed),
            table(channel, placed),
        )
        sizes = [len(names) for names in tasks.tasks]
        return [
            TaskTargets(heatmap, *(column[:, number] for column in columns))
            for number, heatmap in enumerate(torch.split(heatmaps, sizes, dim=1))
        ]

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


def rank_in_group(group: Tensor, num_groups: int) -> Tensor:
    """Return how many earlier rows have the same group, (M,) int64, for groups (M,) int64."""
    order = group.argsort(stable=True)
    counts = torch.zeros(num_groups, dtype=torch.int64, device=group.device)
    counts.index_add_(0, group, torch.ones_like(group))
    starts = counts.cumsum(0) - counts
    place = torch.arange(group.shape[0], device=group.device) - starts[group[order]]
    return torch.empty_like(group).index_copy_(0, order, place)


def gaussian_radius(length: Tensor, width: Tensor, overlap: float) -> Tensor:
    """Return the radius of the Gaussian of boxes, cells.

    The least of three radii, each for one way of shifting two corners so that the IoU is still
    `overlap`.  Differs: the roots of the quadratic equations are not divided by their leading
    coefficients; the error of the CornerNet code (Law and Deng, ECCV 2018) has become the rule.

    Args:
        length, width: (M,) sides in cells, > 0.
        overlap: IoU in (0, 1).
    """
    total, area = length + width, length * width
    product = area * (1 - overlap) / (1 + overlap)
    inner = (total + (total**2 - 4 * product).sqrt()) / 2
    mixed = (2 * total + (4 * total**2 - 16 * (1 - overlap) * area).sqrt()) / 2
    root = (4 * overlap**2 * total**2 + 16 * overlap * (1 - overlap) * area).sqrt()
    outer = (-2 * overlap * total + root) / 2
    return torch.minimum(torch.minimum(inner, mixed), outer)


def draw_gaussians(
    shape: tuple[int, int, int], plane: Tensor, cell: Tensor, radius: Tensor
) -> Tensor:
    """Draw Gaussians into zero planes, the larger value winning where they meet.

    The value at distance d is exp(-d^2 / 2 s^2) with s = (2 radius + 1) / 6, inside a square
    window of the radius.  Its corners are at least exp(-9), above every float's epsilon, so
    nothing small is left to cut.

    Args:
        shape: (planes, H, W).
        plane: (M,) int64.
        cell: (M, 2) int64 x, y inside the map; its value becomes exactly 1.
        radius: (M,) int, cells, >= 0.

    Returns:
        Planes of that shape, float32.
    """
    _, height, width = shape
    radius = radius.long()
    low = (cell - radius[:, None]).clamp(min=0)
    high = torch.minimum(cell + radius[:, None], cell.new_tensor([width - 1, height - 1]))
    columns, rows = (high - low + 1).unbind(1)
    counts = columns * rows
    # One row per pair of box and cell of its window.
    box = torch.repeat_interleave(counts)
    place = torch.arange(box.shape[0], device=box.device) - (counts.cumsum(0) - counts)[box]
    x = low[box, 0] + place % columns[box]
    y = low[box, 1] + place // columns[box]
    squared = ((x - cell[box, 0]) ** 2 + (y - cell[box, 1]) ** 2).float()
    sigma = (2 * radius + 1).float() / 6
    value = torch.exp(-squared / (2 * sigma * sigma)[box])
    canvas = torch.zeros(shape, device=cell.device)
    index = (plane[box] * height + y) * width + x
    canvas.view(-1).scatter_reduce_(0, index, value, "amax")
    return canvas
