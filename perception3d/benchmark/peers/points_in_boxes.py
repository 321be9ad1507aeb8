"""Points in boxes, as done elsewhere; every function returns rows of boxes and of points."""

from collections.abc import Callable

import numpy as np
import torch
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import points_in_box
from pyquaternion import Quaternion
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
    return _join(members)


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
    return _join(members)


def devkit_box_by_box(points: Tensor, boxes: Tensor) -> Callable[[], Pairs]:
    """Return a loop over boxes with nuscenes-devkit's points_in_box; its boxes are made before."""
    columns = points[:, :3].T.contiguous().numpy()
    annotations = [
        Box(box[:3], [box[4], box[3], box[5]], Quaternion(axis=[0, 0, 1], radians=box[6]))
        for box in boxes.double().tolist()
    ]

    def run() -> Pairs:
        masks = [points_in_box(annotation, columns) for annotation in annotations]
        return _join([torch.from_numpy(np.flatnonzero(mask)) for mask in masks])

    return run


def _join(members: list[Tensor]) -> Pairs:
    counts = torch.tensor([len(rows) for rows in members])
    return torch.arange(len(members)).repeat_interleave(counts), torch.cat(members)
