"""Plain torch twin of `perception3d.ops.rotated_nms` and `circle_nms`."""

import torch
from torch import Tensor

from perception3d.ops.reference.box_overlap import box_iou


def rotated_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    pre_max: int | None = None,
    post_max: int | None = None,
) -> Tensor:
    """Suppress boxes by BEV IoU; see `perception3d.ops.rotated_nms`."""
    order = _order_by_score(scores)[:pre_max]
    visited = boxes[order].double()
    # Candidate first, kept box second: swapping them may change the last bit of the IoU.
    suppresses = (box_iou(visited, visited) > iou_threshold).T
    return order[_keep_greedily(suppresses)][:post_max]


def circle_nms(
    centers: Tensor, scores: Tensor, squared_distance: float, *, post_max: int | None = None
) -> Tensor:
    """Suppress centres by distance; see `perception3d.ops.circle_nms`."""
    order = _order_by_score(scores)
    visited = centers[order].double()
    gap = visited[:, None] - visited[None]
    suppresses = gap.square().sum(-1) <= squared_distance
    return order[_keep_greedily(suppresses)][:post_max]


def _order_by_score(scores: Tensor) -> Tensor:
    """Return rows by descending score, ties by row; NaN ranks as -inf."""
    ranked = torch.where(scores.isnan(), -torch.inf, scores)
    return torch.argsort(ranked, descending=True, stable=True)


def _keep_greedily(suppresses: Tensor) -> Tensor:
    """Return the rows (M,) of a bool matrix (K, K) that no row kept before them suppresses."""
    free = torch.ones(suppresses.shape[0], dtype=torch.bool, device=suppresses.device)
    for row in range(suppresses.shape[0]):
        free[row + 1 :] &= ~(suppresses[row, row + 1 :] & free[row])
    return torch.nonzero(free).squeeze(1)
