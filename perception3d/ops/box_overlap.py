"""Exact overlap, IoU and GIoU of boxes turned about z."""

import torch
from torch import Tensor

from perception3d.checks import check_same_device, check_tensor
from perception3d.ops.library import fake_kernel, load_library

native = load_library()

BOX_FLOATS = (torch.float32, torch.float64)
OVERLAP = 0  # BoxMeasure of csrc/common/rotated_box.h
MEASURE_OF_KIND = {"bev": 1, "3d": 2, "giou_bev": 3, "giou_3d": 4}


def box_overlap(boxes_a: Tensor, boxes_b: Tensor, *, aligned: bool = False) -> Tensor:
    """Return the area in m^2 that the footprints of boxes share, seen from above.

    Exact for any sizes: computed in float64, with no margin around corners. Boxes that only touch
    share exactly 0. A size below 0 counts as 0. The result is NaN where x, y, dx, dy or yaw of
    either box is not finite.

    Args:
        boxes_a: (A, >=7) float32 or float64 [x, y, z, dx, dy, dz, yaw, ...], m and rad.
        boxes_b: (B, >=7) of the same dtype; B = A if aligned.
        aligned: compare box i with box i only.

    Returns:
        (A, B), or (A,) if aligned, in the dtype of the boxes.

    Raises:
        TypeError, ValueError: shape, dtype or device; or an input that requires grad, since the
            operator has no gradient (`perception3d.ops.reference.box_overlap` has one).
    """
    return _measure("box_overlap", boxes_a, boxes_b, OVERLAP, aligned)


def box_iou(
    boxes_a: Tensor, boxes_b: Tensor, *, kind: str = "bev", aligned: bool = False
) -> Tensor:
    """Return how well boxes cover each other: intersection over union, or generalised.

    GIoU (Rezatofighi et al., CVPR 2019) subtracts the share of the enclosing region that neither
    box covers; the region is the convex hull of both footprints, in 3-D times the height they
    span together. Two boxes without any size have IoU 0. Accuracy, sizes below 0 and numbers that
    are not finite: as in `box_overlap`; z and dz matter to the 3-D kinds only.

    Args:
        boxes_a: (A, >=7) float32 or float64 [x, y, z, dx, dy, dz, yaw, ...], m and rad.
        boxes_b: (B, >=7) of the same dtype; B = A if aligned.
        kind: "bev" (footprints), "3d" (volumes), "giou_bev" or "giou_3d".
        aligned: compare box i with box i only.

    Returns:
        (A, B), or (A,) if aligned, in the dtype of the boxes; IoU in [0, 1], GIoU in (-1, 1].

    Raises:
        TypeError, ValueError: shape, dtype, device or kind; or an input that requires grad, since
            the operator has no gradient (`perception3d.ops.reference.box_overlap` has one).
    """
    if kind not in MEASURE_OF_KIND:
        raise ValueError(f"box_iou: kind must be one of {list(MEASURE_OF_KIND)}, got {kind!r}")
    return _measure("box_iou", boxes_a, boxes_b, MEASURE_OF_KIND[kind], aligned)


def _measure(op: str, boxes_a: Tensor, boxes_b: Tensor, measure: int, aligned: bool) -> Tensor:
    check_tensor(op, "boxes_a", boxes_a, ("A", ">=7"), BOX_FLOATS)
    rows = boxes_a.shape[0] if aligned else "B"
    check_tensor(op, "boxes_b", boxes_b, (rows, ">=7"), (boxes_a.dtype,))
    check_same_device(op, boxes_a=boxes_a, boxes_b=boxes_b)
    for name, boxes in (("boxes_a", boxes_a), ("boxes_b", boxes_b)):
        if boxes.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"{op}: {name} must not require grad, the operator has no gradient; detach it, or "
                f"use perception3d.ops.reference.box_overlap.{op}, which is differentiable"
            )
    result: Tensor = native.box_overlap(
        boxes_a.detach()[:, :7].contiguous(), boxes_b.detach()[:, :7].contiguous(), measure, aligned
    )
    return result


@fake_kernel("box_overlap")
def _fake(boxes_a: Tensor, boxes_b: Tensor, measure: int, aligned: bool) -> Tensor:
    rows, columns = boxes_a.shape[0], boxes_b.shape[0]
    return boxes_a.new_empty(rows) if aligned else boxes_a.new_empty(rows, columns)
