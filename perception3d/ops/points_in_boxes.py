"""Membership of points in boxes turned about z."""

import torch
from torch import Tensor

from perception3d.checks import check_same_device, check_tensor
from perception3d.ops.box_overlap import BOX_FLOATS
from perception3d.ops.library import fake_kernel, load_library

native = load_library()


def points_in_boxes(points: Tensor, boxes: Tensor, *, margin: float = 0.0) -> tuple[Tensor, Tensor]:
    """List every pair of a box and a point inside it.

    In the frame of the box, with half its sizes, a member has |x|, |y| <= half and |z| <= half;
    with a margin the test of x and y is |x|, |y| < half + margin (OpenPCDet:
    pcdet/ops/roiaware_pool3d, margin 1e-5 on the GPU and 1e-2 on the CPU). Computed in float64.
    Points and boxes with a number that is not finite have no part in any pair. Gradients do not
    flow through row numbers, so inputs that require grad are accepted.

    Args:
        points: (P, >=3) float32 or float64 [x, y, z, ...], m.
        boxes: (K, >=7) of the same dtype [x, y, z, dx, dy, dz, yaw, ...], m and rad.
        margin: >= 0, m.

    Returns:
        box_of_member: (M,) int64 rows of `boxes`, ascending.
        point_of_member: (M,) int64 rows of `points`, ascending within a box.

    Raises:
        TypeError, ValueError: shape, dtype, device or a margin that is negative or not finite.
    """
    _check("points_in_boxes", points, boxes, margin)
    return _find_members(points, boxes, margin)


def box_of_point(points: Tensor, boxes: Tensor, *, margin: float = 0.0) -> Tensor:
    """Return the first box that contains each point.

    Args:
        points: (P, >=3) float32 or float64 [x, y, z, ...], m.
        boxes: (K, >=7) of the same dtype [x, y, z, dx, dy, dz, yaw, ...], m and rad.
        margin: >= 0, m; see `points_in_boxes` for the rule.

    Returns:
        (P,) int64, lowest row of `boxes`, -1 for points in no box.

    Raises:
        TypeError, ValueError: shape, dtype, device or a margin that is negative or not finite.
    """
    _check("box_of_point", points, boxes, margin)
    box_of_member, point_of_member = _find_members(points, boxes, margin)
    none = boxes.shape[0]
    result = torch.full((points.shape[0],), none, dtype=torch.int64, device=points.device)
    result.scatter_reduce_(0, point_of_member, box_of_member, "amin")
    return result.masked_fill_(result == none, -1)


def _check(op: str, points: Tensor, boxes: Tensor, margin: float) -> None:
    check_tensor(op, "points", points, ("P", ">=3"), BOX_FLOATS)
    check_tensor(op, "boxes", boxes, ("K", ">=7"), (points.dtype,))
    check_same_device(op, points=points, boxes=boxes)
    if not 0 <= margin < float("inf"):
        raise ValueError(f"{op}: margin must be a finite number >= 0, got {margin}")


def _find_members(points: Tensor, boxes: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    box_of_member, point_of_member = native.points_in_boxes(
        points.detach().contiguous(), boxes.detach()[:, :7].contiguous(), margin
    )
    return box_of_member, point_of_member


@fake_kernel("points_in_boxes")
def _fake(points: Tensor, boxes: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    members = torch.library.get_ctx().new_dynamic_size()
    return (
        points.new_empty(members, dtype=torch.int64),
        points.new_empty(members, dtype=torch.int64),
    )
