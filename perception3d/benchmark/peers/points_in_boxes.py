"""Points in boxes, as done elsewhere; every function returns rows of boxes and of points."""

import numpy as np
import torch
from torch import Tensor

Pairs = tuple[Tensor, Tensor]


def torch_all_pairs(points: Tensor, boxes: Tensor) -> Pairs:
    """One broadcast over boxes x points in torch operators."""
    dx, dy, dz = (points[None, :, :3] - boxes[:, None, :3]).unbind(-1)
    cos, sin = boxes[:, 6, None].cos(), boxes[:, 6, None].sin()
    half = 0.5 * boxes[:, None, 3:6]
    inside = (dx * cos + dy * sin).abs() <= half[..., 0]
    inside &= (dy * cos - dx * sin).abs() <= half[..., 1]
    inside &= dz.abs() <= half[..., 2]
    box, point = torch.nonzero(inside).unbind(1)
    return box, point


def torch_box_by_box(points: Tensor, boxes: Tensor) -> Pairs:
    """A loop over boxes; each tests all points in torch operators."""
    members = []
    for box in boxes:
        dx, dy, dz = (points[:, :3] - box[:3]).unbind(1)
        cos, sin = box[6].cos(), box[6].sin()
        inside = (dx * cos + dy * sin).abs() <= 0.5 * box[3]
        inside &= (dy * cos - dx * sin).abs() <= 0.5 * box[4]
        inside &= dz.abs() <= 0.5 * box[5]
        members.append(torch.nonzero(inside).squeeze(1))
    return join(members)


def numpy_bounds_first(points: Tensor, boxes: Tensor) -> Pairs:
    """A loop over boxes in numpy; the exact test sees only the points near the box."""
    array, rows = points.numpy(), boxes.double().numpy()
    x, y = np.ascontiguousarray(array[:, 0]), np.ascontiguousarray(array[:, 1])
    members = []
    for box in rows:
        reach = 0.5 * np.hypot(box[3], box[4])
        near = np.flatnonzero((np.abs(x - box[0]) <= reach) & (np.abs(y - box[1]) <= reach))
        dx, dy, dz = (array[near, :3] - box[:3]).T
        cos, sin = np.cos(box[6]), np.sin(box[6])
        inside = np.abs(dx * cos + dy * sin) <= 0.5 * box[3]
        inside &= np.abs(dy * cos - dx * sin) <= 0.5 * box[4]
        inside &= np.abs(dz) <= 0.5 * box[5]
        members.append(torch.from_numpy(near[inside]))
    return join(members)


def join(members: list[Tensor]) -> Pairs:
    """Return rows of boxes and of points, given the points of each box."""
    owners = [torch.full_like(rows, box) for box, rows in enumerate(members)]
    return torch.cat(owners), torch.cat(members)
