"""Assigns points to voxels in order of arrival, with limits."""

from collections.abc import Sequence

import torch
from torch import Tensor

from perception3d.checks import check_tensor
from perception3d.ops.library import fake_kernel, load_library
from perception3d.ops.voxel_grid import voxel_grid_size

native = load_library()


def hard_voxelize(
    points: Tensor,
    voxel_size: Sequence[float],
    point_cloud_range: Sequence[float],
    max_points: int,
    max_voxels: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the voxel of every point of one frame, first come, first served.

    Cells are those of `voxelize`.  Once `max_voxels` voxels exist, a point that would open another
    is dropped; so is every point beyond `max_points` of a voxel (traveller59/spconv:
    PointToVoxel, without its padded copy of the points).  The order of points matters.

    Args:
        points: (P, >= 3) float32 [x, y, z, ...], m, of one frame.
        voxel_size: size x, y, z in m.
        point_cloud_range: x, y, z minimum, then x, y, z maximum, in m.
        max_points: most points per voxel, >= 1.
        max_voxels: most voxels, >= 1.

    Returns:
        voxel_of_point: (P,) int64 row of `coords`, -1 for dropped points.
        coords: (V, 4) int32 rows (0, z, y, x), in order of first appearance.
        num_points: (V,) int64 points kept in each voxel.

    Raises:
        TypeError, ValueError: shape, dtype, limits, voxel size or range.
    """
    check_tensor("hard_voxelize", "points", points, ("P", "F"), (torch.float32,))
    if points.shape[1] < 3:
        raise ValueError(
            f"hard_voxelize: points must be (P, >= 3) float32, got {tuple(points.shape)}"
        )
    for name, limit in (("max_points", max_points), ("max_voxels", max_voxels)):
        if limit < 1:
            raise ValueError(f"hard_voxelize: {name} must be >= 1, got {limit}")
    grid_size = voxel_grid_size(voxel_size, point_cloud_range, owner="hard_voxelize")
    voxel_of_point, coords, num_points = native.hard_voxelize(
        points.detach().contiguous(),
        list(voxel_size),
        list(point_cloud_range[:3]),
        list(grid_size),
        max_points,
        max_voxels,
    )
    return voxel_of_point, coords, num_points


@fake_kernel("hard_voxelize")
def _fake(
    points: Tensor,
    voxel_size: list[float],
    lower: list[float],
    grid_size: list[int],
    max_points: int,
    max_voxels: int,
) -> tuple[Tensor, Tensor, Tensor]:
    voxels = torch.library.get_ctx().new_dynamic_size()
    return (
        points.new_empty(points.shape[0], dtype=torch.int64),
        points.new_empty((voxels, 4), dtype=torch.int32),
        points.new_empty(voxels, dtype=torch.int64),
    )
