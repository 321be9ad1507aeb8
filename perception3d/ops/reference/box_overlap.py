"""Plain torch twin of `perception3d.ops.box_overlap`; differentiable, any float dtype."""

import torch
from torch import Tensor

TOUCHING = 1e-14  # a share of the sizes that is rounding: boxes interlocked by less only touch


def box_overlap(boxes_a: Tensor, boxes_b: Tensor, *, aligned: bool = False) -> Tensor:
    """Measure footprint overlaps in m^2; see `perception3d.ops.box_overlap`."""
    a, b = _pair_up(boxes_a, boxes_b, aligned)
    return _overlap_area(a, b).to(boxes_a.dtype)


def box_iou(
    boxes_a: Tensor, boxes_b: Tensor, *, kind: str = "bev", aligned: bool = False
) -> Tensor:
    """Compute IoU or GIoU; see `perception3d.ops.box_iou`."""
    a, b = _pair_up(boxes_a, boxes_b, aligned)
    inter, size_a, size_b = _overlap_area(a, b), _area(a), _area(b)
    enclosing = _hull_area(a, b) if kind.startswith("giou") else None
    if kind.endswith("3d"):
        (bottom_a, top_a), (bottom_b, top_b) = _z_range(a), _z_range(b)
        inter = inter * (top_a.minimum(top_b) - bottom_a.maximum(bottom_b)).clamp(min=0)
        size_a, size_b = size_a * (top_a - bottom_a), size_b * (top_b - bottom_b)
        if enclosing is not None:
            enclosing = enclosing * (top_a.maximum(top_b) - bottom_a.minimum(bottom_b))
    union = size_a + size_b - inter
    result = _ratio_or_zero(inter, union)
    if enclosing is not None:
        result = result - _ratio_or_zero(enclosing - union, enclosing)
    used = [0, 1, 3, 4, 6] + ([2, 5] if kind.endswith("3d") else [])
    known = a[..., used].isfinite().all(-1) & b[..., used].isfinite().all(-1)
    return torch.where(known, result, torch.nan).to(boxes_a.dtype)


def _pair_up(boxes_a: Tensor, boxes_b: Tensor, aligned: bool) -> tuple[Tensor, Tensor]:
    """Return both as float64 (A, B, 7) or (A, 7), sizes below 0 as 0."""
    a, b = boxes_a[:, :7].double(), boxes_b[:, :7].double()
    a, b = (torch.cat([box[:, :3], _sizes(box), box[:, 6:]], 1) for box in (a, b))
    if aligned:
        return a, b
    shape = (a.shape[0], b.shape[0], a.shape[1])
    return a[:, None].expand(shape), b[None].expand(shape)


def _sizes(boxes: Tensor) -> Tensor:
    """Return (N, 3) sizes >= 0; -inf stays, to be found with the other infinities."""
    sizes = boxes[:, 3:6]
    return torch.where(sizes > -torch.inf, sizes.clamp(min=0), sizes)


def _overlap_area(a: Tensor, b: Tensor) -> Tensor:
    """Intersect b with a in the frame of a.

    A vertical line cuts b in [low, high], and a contains clamp(high) - clamp(low) of it, with the
    clamp at a's width: the area is the boundary integral of clamp(y) dx over the edges of b
    between a's ends.
    """
    x, y, cos, sin = _relative_pose(a, b)
    (ax, ay), (bx, by) = _halves(a), _halves(b)
    ux, uy, vx, vy = cos * bx, sin * bx, -sin * by, cos * by
    area = ux * _integrate_edge(x + vx, y + vy, ux, uy, ax, ay)
    area = area - ux * _integrate_edge(x - vx, y - vy, ux, uy, ax, ay)
    area = area + vx * _integrate_edge(x - ux, y - uy, vx, vy, ax, ay)
    area = area - vx * _integrate_edge(x + ux, y + uy, vx, vy, ax, ay)

    abs_cos, abs_sin, room = cos.abs(), sin.abs(), 1 - TOUCHING
    apart = x.abs() >= (ax + abs_cos * bx + abs_sin * by) * room
    apart |= y.abs() >= (ay + abs_sin * bx + abs_cos * by) * room
    apart |= (x * cos + y * sin).abs() >= (bx + abs_cos * ax + abs_sin * ay) * room
    apart |= (y * cos - x * sin).abs() >= (by + abs_sin * ax + abs_cos * ay) * room
    apart |= (_area(a) == 0) | (_area(b) == 0)
    area = torch.where(apart, 0, area.clamp(min=0)).minimum(_area(a)).minimum(_area(b))
    known = a[..., [0, 1, 3, 4, 6]].isfinite().all(-1) & b[..., [0, 1, 3, 4, 6]].isfinite().all(-1)
    return torch.where(known, area, torch.nan)


def _integrate_edge(
    mx: Tensor, my: Tensor, dx: Tensor, dy: Tensor, half_x: Tensor, half_y: Tensor
) -> Tensor:
    """Integrate clamp(y(t), +-half_y) over the t where |x(t)| <= half_x.

    The edge is (mx, my) + t * (dx, dy), t in [-1, 1].
    """
    inverse_dx, inverse_dy = _inverse_or_zero(dx), _inverse_or_zero(dy)
    enter, leave = (-half_x - mx) * inverse_dx, (half_x - mx) * inverse_dx
    begin = enter.minimum(leave).clamp(-1, 1)
    end = enter.maximum(leave).clamp(-1, 1)
    first = (my + begin * dy).maximum(-half_y).minimum(half_y)
    last = (my + end * dy).maximum(-half_y).minimum(half_y)
    # y is at a limit until `rise`, then linear until `fall`, then at a limit.
    low, high = (-half_y - my) * inverse_dy, (half_y - my) * inverse_dy
    rise = low.minimum(high).maximum(begin).minimum(end)
    fall = low.maximum(high).maximum(begin).minimum(end)
    return (rise - begin) * first + 0.5 * (fall - rise) * (first + last) + (end - fall) * last


def _hull_area(a: Tensor, b: Tensor) -> Tensor:
    """Return the area of the convex hull of both footprints.

    Its upper and lower boundary are linear between neighbouring corners, and at a corner's x they
    are the extremes of all segments between two corners there; so the area is a sum of trapezoids.
    """
    corners_x, corners_y = _corners(a, b)  # (..., 8), ascending x
    left, right = torch.triu_indices(8, 8, device=a.device)  # segments, points themselves included
    x_left, x_right = corners_x[..., left], corners_x[..., right]
    y_left, y_right = corners_y[..., left], corners_y[..., right]
    at = corners_x[..., None]
    share = (at - x_left[..., None, :]) * _inverse_or_zero(x_right - x_left)[..., None, :]
    y = y_left[..., None, :] + share * (y_right - y_left)[..., None, :]
    number = torch.arange(8, device=a.device)[:, None]
    outside = (number < left) | (number > right)
    height = y.masked_fill(outside, -torch.inf).amax(-1) - y.masked_fill(outside, torch.inf).amin(
        -1
    )
    area = 0.5 * ((height[..., 1:] + height[..., :-1]) * corners_x.diff(dim=-1)).sum(-1)
    return area.maximum(_area(a)).maximum(_area(b))


def _corners(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and y (..., 8) of all corners in the frame of a, by ascending x."""
    x, y, cos, sin = _relative_pose(a, b)
    (ax, ay), (bx, by) = _halves(a), _halves(b)
    ux, uy, vx, vy = cos * bx, sin * bx, -sin * by, cos * by
    corners_x = torch.stack(
        [-ax, -ax, ax, ax, x + ux + vx, x + ux - vx, x - ux + vx, x - ux - vx], -1
    )
    corners_y = torch.stack(
        [-ay, ay, -ay, ay, y + uy + vy, y + uy - vy, y - uy + vy, y - uy - vy], -1
    )
    corners_x, order = corners_x.sort(-1)
    return corners_x, corners_y.gather(-1, order)


def _relative_pose(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return centre x, y and cosine, sine of the heading of b in the frame of a."""
    dx, dy = (b - a)[..., :2].unbind(-1)
    cos_a, sin_a = a[..., 6].cos(), a[..., 6].sin()
    cos_b, sin_b = b[..., 6].cos(), b[..., 6].sin()
    return (
        dx * cos_a + dy * sin_a,
        dy * cos_a - dx * sin_a,
        cos_a * cos_b + sin_a * sin_b,
        cos_a * sin_b - sin_a * cos_b,
    )


def _halves(box: Tensor) -> tuple[Tensor, Tensor]:
    return 0.5 * box[..., 3], 0.5 * box[..., 4]


def _area(box: Tensor) -> Tensor:
    return box[..., 3] * box[..., 4]


def _z_range(box: Tensor) -> tuple[Tensor, Tensor]:
    return box[..., 2] - 0.5 * box[..., 5], box[..., 2] + 0.5 * box[..., 5]


def _inverse_or_zero(value: Tensor) -> Tensor:
    """Return 1 / value, or 0 where the value is 0: what is multiplied by it spans nothing."""
    zero = value.abs() < 1e-100
    return torch.where(zero, 0, 1 / torch.where(zero, 1, value))


def _ratio_or_zero(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, or 0 where the whole is 0."""
    empty = whole == 0
    return torch.where(empty, 0, part / torch.where(empty, 1, whole))
