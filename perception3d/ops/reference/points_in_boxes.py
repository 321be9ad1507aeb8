"""Plain torch twin of `perception3d.ops.points_in_boxes` and `box_of_point`."""

import torch
from torch import Tensor


def points_in_boxes(points: Tensor, boxes: Tensor, *, margin: float = 0.0) -> tuple[Tensor, Tensor]:
    """List all members of all boxes; see `perception3d.ops.points_in_boxes`."""
    box_of_member, point_of_member = torch.nonzero(_is_inside(points, boxes, margin)).unbind(1)
    return box_of_member, point_of_member


def box_of_point(points: Tensor, boxes: Tensor, *, margin: float = 0.0) -> Tensor:
    """Return the lowest box of each point or -1; see `perception3d.ops.box_of_point`."""
    inside = _is_inside(points, boxes, margin)
    number = torch.arange(boxes.shape[0], device=points.device)[:, None]
    none = boxes.shape[0]
    box = torch.where(inside, number, none).T
    lowest = torch.cat([box, box.new_full((points.shape[0], 1), none)], 1).amin(1)
    return torch.where(lowest == none, -1, lowest)


def _is_inside(points: Tensor, boxes: Tensor, margin: float) -> Tensor:
    """Return (K, P) bool, in float64."""
    points, boxes = points[:, :3].double(), boxes[:, :7].double()
    dx, dy, dz = (points[None] - boxes[:, None, :3]).unbind(-1)
    cos, sin = boxes[:, 6, None].cos(), boxes[:, 6, None].sin()
    x, y, z = (dx * cos + dy * sin).abs(), (dy * cos - dx * sin).abs(), dz.abs()
    half: Tensor = 0.5 * boxes[:, 3:6, None]
    inside = boxes.isfinite().all(1)[:, None] & (z <= half[:, 2])
    if margin > 0:
        return inside & (x < half[:, 0] + margin) & (y < half[:, 1] + margin)
    return inside & (x <= half[:, 0]) & (y <= half[:, 1])
