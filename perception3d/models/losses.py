"""Losses as functions; they compute in float32 at least, whatever autocast says.

In data-parallel training they divide by counts over all processes, see `loss_divisor`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from perception3d.layers.processes import loss_divisor

PROBABILITY_MARGIN = 1e-4
_FOCAL_ALPHA = 0.25


def full_precision(values: Tensor) -> Tensor:
    """Return half-precision values as float32, others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def gaussian_focal_loss(logits: Tensor, heatmap: Tensor) -> Tensor:
    """Penalty-reduced focal loss of a heat map (CenterNet, eq. 1; alpha 2, beta 4).

    -[sum over g = 1 of log(p) (1 - p)^2 + sum over g < 1 of log(1 - p) p^2 (1 - g)^4] / N with
    p = sigmoid(logit), clamped to [1e-4, 1 - 1e-4], and N the number of ones, at least 1.

    Args:
        logits: any shape.
        heatmap: the same shape, in [0, 1], exactly 1 at centres.

    Returns:
        Scalar.
    """
    logits, heatmap = full_precision(logits), full_precision(heatmap)
    p = logits.sigmoid().clamp(PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    is_center = heatmap == 1
    # log1p keeps the tiny gradients of the many cells where p is near 0
    hit = p.log() * (1 - p) ** 2
    miss = torch.log1p(-p) * p**2 * (1 - heatmap) ** 4
    return -torch.where(is_center, hit, miss).sum() / loss_divisor(is_center.sum())


def sigmoid_focal_loss(logits: Tensor, wanted: Tensor, count: Tensor) -> Tensor:
    """Focal loss of independent classes (ICCV 2017, eq. 5; alpha 0.25, gamma 2).

    -[sum over wanted of 0.25 log(p) (1 - p)^2 + sum over others of 0.75 log(1 - p) p^2] / N with
    p = sigmoid(logit).

    Args:
        logits: any shape.
        wanted: the same shape, bool or 0 and 1.
        count: N, a scalar, counted as 1 at least.

    Returns:
        Scalar.
    """
    logits = full_precision(logits)
    p = logits.sigmoid()
    hit = _FOCAL_ALPHA * F.logsigmoid(logits) * (1 - p) ** 2
    miss = (1 - _FOCAL_ALPHA) * F.logsigmoid(-logits) * p**2
    return -torch.where(wanted.bool(), hit, miss).sum() / loss_divisor(count)


def masked_l1_loss(predictions: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Sum of absolute errors per column over the masked rows, divided by their number.

    Args:
        predictions: (..., C).
        targets: (..., C); NaN entries do not count.
        mask: (...) bool.

    Returns:
        (C,); zero without a masked row.
    """
    predictions, targets = full_precision(predictions), full_precision(targets)
    counted = mask[..., None] & ~targets.isnan()
    error = torch.where(counted, predictions - targets.nan_to_num(0.0), 0.0).abs()
    return error.flatten(end_dim=-2).sum(dim=0) / loss_divisor(mask.sum())


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the masked values (scalar), zero without any."""
    values = full_precision(values)
    return torch.where(mask, values, 0.0).sum() / loss_divisor(mask.sum())


def aligned_diou_3d(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Distance IoU of pairs of boxes whose headings are ignored.

    IoU minus squared centre distance over the squared diagonal of the hull (Distance-IoU Loss,
    AAAI 2020, eq. 6, in 3-D), clamped to [-1, 1].

    Args:
        boxes_a, boxes_b: (..., >= 6) x, y, z, dx, dy, dz, m; sizes positive.

    Returns:
        (...).
    """
    boxes_a, boxes_b = full_precision(boxes_a), full_precision(boxes_b)
    center_a, size_a = boxes_a[..., :3], boxes_a[..., 3:6]
    center_b, size_b = boxes_b[..., :3], boxes_b[..., 3:6]
    low_a, high_a = center_a - size_a / 2, center_a + size_a / 2
    low_b, high_b = center_b - size_b / 2, center_b + size_b / 2
    shared = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0).prod(-1)
    union = size_a.prod(-1) + size_b.prod(-1) - shared
    hull = torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)
    distance = ((center_a - center_b) ** 2).sum(-1)
    return (shared / union - distance / (hull**2).sum(-1)).clamp(-1, 1)
