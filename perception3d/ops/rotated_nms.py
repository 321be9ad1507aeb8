"""Greedy suppression of boxes that repeat a better one."""

import torch
from torch import Tensor

from perception3d.checks import check_same_device, check_tensor
from perception3d.ops.box_overlap import BOX_FLOATS
from perception3d.ops.library import fake_kernel, load_library

native = load_library()

NO_LIMIT = -1


def rotated_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    pre_max: int | None = None,
    post_max: int | None = None,
) -> Tensor:
    """Drop every box whose BEV IoU with a kept box of higher score exceeds a threshold.

    Deterministic: of equal scores the lower row comes first, NaN ranks as -inf, and the IoU is
    that of `box_iou`, in float64. A box with x, y, dx, dy or yaw not finite is kept and suppresses
    nothing. Gradients do not flow through row numbers, so inputs that require grad are accepted.

    Args:
        boxes: (K, >=7) float32 or float64 [x, y, z, dx, dy, dz, yaw, ...], m and rad.
        scores: (K,) of the same dtype.
        iou_threshold: >= 0; boxes with IoU > threshold are dropped.
        pre_max: if given, only this many boxes of highest score are looked at.
        post_max: if given, at most this many boxes are kept.

    Returns:
        (M,) int64 rows of the kept boxes, by descending score.

    Raises:
        TypeError, ValueError: shape, dtype, device, a threshold or a limit below 0.
    """
    check_tensor("rotated_nms", "boxes", boxes, ("K", ">=7"), BOX_FLOATS)
    _check_scores("rotated_nms", "boxes", boxes, scores)
    if not iou_threshold >= 0:
        raise ValueError(f"rotated_nms: iou_threshold must be >= 0, got {iou_threshold}")
    limits = [
        _check_limit("rotated_nms", name, limit)
        for name, limit in (("pre_max", pre_max), ("post_max", post_max))
    ]
    keep: Tensor = native.rotated_nms(
        boxes.detach()[:, :7].contiguous(), scores.detach().contiguous(), iou_threshold, *limits
    )
    return keep


def circle_nms(
    centers: Tensor, scores: Tensor, squared_distance: float, *, post_max: int | None = None
) -> Tensor:
    """Drop every centre too close to a kept one of higher score.

    Order of visits, ties, NaN and gradients: as in `rotated_nms`.

    Args:
        centers: (K, 2) float32 or float64 x, y, m.
        scores: (K,) of the same dtype.
        squared_distance: >= 0, m^2; centres at this squared distance or nearer are dropped.
        post_max: if given, at most this many centres are kept.

    Returns:
        (M,) int64 rows of the kept centres, by descending score.

    Raises:
        TypeError, ValueError: shape, dtype, device, a distance or a limit below 0.
    """
    check_tensor("circle_nms", "centers", centers, ("K", 2), BOX_FLOATS)
    _check_scores("circle_nms", "centers", centers, scores)
    if not squared_distance >= 0:
        raise ValueError(f"circle_nms: squared_distance must be >= 0, got {squared_distance}")
    limit = _check_limit("circle_nms", "post_max", post_max)
    keep: Tensor = native.circle_nms(
        centers.detach().contiguous(), scores.detach().contiguous(), squared_distance, limit
    )
    return keep


def _check_scores(op: str, name: str, rows: Tensor, scores: Tensor) -> None:
    check_tensor(op, "scores", scores, (rows.shape[0],), (rows.dtype,))
    check_same_device(op, **{name: rows, "scores": scores})


def _check_limit(op: str, name: str, limit: int | None) -> int:
    if limit is not None and limit < 0:
        raise ValueError(f"{op}: {name} must be None or >= 0, got {limit}")
    return NO_LIMIT if limit is None else limit


@fake_kernel("rotated_nms")
def _fake_rotated(
    boxes: Tensor, scores: Tensor, iou_threshold: float, pre_max: int, post_max: int
) -> Tensor:
    return _unknown_rows(boxes)


@fake_kernel("circle_nms")
def _fake_circle(centers: Tensor, scores: Tensor, squared_distance: float, post_max: int) -> Tensor:
    return _unknown_rows(centers)


def _unknown_rows(like: Tensor) -> Tensor:
    return like.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)
