"""Overlap and suppression of turned boxes, as done elsewhere in torch and numpy, float32."""

import numpy as np
import torch
from torch import Tensor

_SIGNS = ((1, 1), (-1, 1), (-1, -1), (1, -1))
_MARGIN = 1e-6  # m; a corner on an edge counts as inside
_PAIRS_AT_ONCE = 1 << 16


def corners_of(boxes: Tensor) -> Tensor:
    """Return footprint corners (K, 4, 2), counter-clockwise."""
    signs = boxes.new_tensor(_SIGNS)
    local = 0.5 * signs * boxes[:, None, 3:5]
    cos, sin = boxes[:, 6, None].cos(), boxes[:, 6, None].sin()
    x = local[..., 0] * cos - local[..., 1] * sin
    y = local[..., 0] * sin + local[..., 1] * cos
    return torch.stack([x, y], -1) + boxes[:, None, :2]


def sorted_corners_iou(a: Tensor, b: Tensor) -> Tensor:
    """BEV IoU of pairs (N, 7), (N, 7): gather corners and crossings, sort them by angle, shoelace.

    The usual vectorised form: corners of one inside the other and edge crossings, 24 candidates a
    pair.
    """
    if a.shape[0] > _PAIRS_AT_ONCE:
        chunks = range(0, a.shape[0], _PAIRS_AT_ONCE)
        parts = [slice(first, first + _PAIRS_AT_ONCE) for first in chunks]
        return torch.cat([sorted_corners_iou(a[part], b[part]) for part in parts])
    center = a[:, None, :2]
    corners_a, corners_b = corners_of(a) - center, corners_of(b) - center
    crossings, crossed = _crossings(corners_a, corners_b)
    points = torch.cat([corners_a, corners_b, crossings], 1)
    inside_b, inside_a = _inside(corners_a + center, b), _inside(corners_b + center, a)
    valid = torch.cat([inside_b, inside_a, crossed], 1)
    count = valid.sum(1, keepdim=True)
    middle = (points * valid[..., None]).sum(1, keepdim=True) / count.clamp(min=1)[..., None]
    spokes = points - middle
    angle = torch.atan2(spokes[..., 1], spokes[..., 0]).masked_fill(~valid, torch.inf)
    order = angle.argsort(1)
    first = order[:, :1]
    slots = torch.arange(order.shape[1], device=a.device)
    order = torch.where(slots < count, order, first)  # what is not valid repeats the first vertex
    spokes = spokes.gather(1, order[..., None].expand(-1, -1, 2))
    following = spokes.roll(-1, 1)
    cross = spokes[..., 0] * following[..., 1] - spokes[..., 1] * following[..., 0]
    overlap = torch.where(count[:, 0] > 2, 0.5 * cross.sum(1).abs(), 0)
    union: Tensor = a[:, 3] * a[:, 4] + b[:, 3] * b[:, 4] - overlap
    return overlap / union


def _inside(corners: Tensor, boxes: Tensor) -> Tensor:
    """Return (N, 4) bool: corner in the box of the same row."""
    x, y = (corners - boxes[:, None, :2]).unbind(-1)
    cos, sin = boxes[:, 6, None].cos(), boxes[:, 6, None].sin()
    along, across = (x * cos + y * sin).abs(), (y * cos - x * sin).abs()
    half = 0.5 * boxes[:, None, 3:5] + _MARGIN
    inside: Tensor = (along <= half[..., 0]) & (across <= half[..., 1])
    return inside


def _crossings(corners_a: Tensor, corners_b: Tensor) -> tuple[Tensor, Tensor]:
    """Return crossings (N, 16, 2) of all edges of a with all edges of b, and which exist."""
    start_a, start_b = corners_a[:, :, None], corners_b[:, None]
    along_a = (corners_a.roll(-1, 1) - corners_a)[:, :, None]
    along_b = (corners_b.roll(-1, 1) - corners_b)[:, None]
    gap = start_b - start_a
    denominator = _cross(along_a, along_b)
    parallel = denominator.abs() < 1e-12
    denominator = denominator.masked_fill(parallel, 1)
    t, s = _cross(gap, along_b) / denominator, _cross(gap, along_a) / denominator
    exists = ~parallel & (t >= 0) & (t <= 1) & (s >= 0) & (s <= 1)
    return (start_a + t[..., None] * along_a).flatten(1, 2), exists.flatten(1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def near_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Return rows (N, 2) of boxes whose surrounding circles meet."""
    radius_a, radius_b = 0.5 * a[:, 3:5].norm(dim=1), 0.5 * b[:, 3:5].norm(dim=1)
    return torch.nonzero(torch.cdist(a[:, :2], b[:, :2]) < radius_a[:, None] + radius_b)


def torch_iou_matrix(a: Tensor, b: Tensor) -> Tensor:
    """BEV IoU matrix in torch operators: near pairs only, then `sorted_corners_iou`."""
    rows, columns = near_pairs(a, b).unbind(1)
    result = a.new_zeros(a.shape[0], b.shape[0])
    result[rows, columns] = sorted_corners_iou(a[rows], b[columns])
    return result


def torch_matrix_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """All near pairs in torch first, then a greedy walk over the bit matrix in numpy."""
    order = torch.argsort(scores, descending=True, stable=True)
    suppresses = torch_iou_matrix(boxes[order], boxes[order]) > threshold
    return order[_walk(suppresses.cpu().numpy()).to(order.device)]


def _walk(suppresses: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> Tensor:
    free = np.ones(len(suppresses), bool)
    kept = []
    for row in range(len(suppresses)):
        if free[row]:
            kept.append(row)
            free &= ~suppresses[row]
    return torch.tensor(kept)


def numpy_circle_nms(centers: Tensor, scores: Tensor, squared_distance: float) -> Tensor:
    """Each kept centre against all later ones, in numpy."""
    order = np.argsort(-scores.numpy(), kind="stable")
    places = centers.numpy()[order]
    free = np.ones(len(order), bool)
    kept = []
    for row in range(len(order)):
        if free[row]:
            kept.append(row)
            gap = places[row + 1 :] - places[row]
            free[row + 1 :] &= (gap * gap).sum(1) > squared_distance
    return torch.from_numpy(order[kept])
