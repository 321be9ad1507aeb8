"""Assigns points to voxels, every point kept."""

from collections.abc import Sequence

import torch
from torch import Tensor

from perception3d.checks import check_same_device, check_tensor
from perception3d.ops.library import fake_kernel, load_library
from perception3d.ops.voxel_grid import voxel_grid_size

native = load_library()


def voxelize(
    points: Tensor,
    frame_of_point: Tensor,
    batch_size: int,
    voxel_size: Sequence[float],
    point_cloud_range: Sequence[float],
    check_z: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find the voxel of every point; nothing is capped.

    Cell = floor((p - minimum) / size) in float32, subtraction and division apart, as the dynamic
    voxel encoders of open-mmlab/OpenPCDet do; points with 0 <= cell < grid size on every axis
    are kept.  A point whose x, y or z is NaN or infinite is dropped.

    Args:
        points: (P, >= 3) float32 [x, y, z, ...], m.
        frame_of_point: (P,) int32 frame number of each point, in any order.
        batch_size: number of frames, any.
        voxel_size: size x, y, z in m.
        point_cloud_range: x, y, z minimum, then x, y, z maximum, in m.
        check_z: false ignores the z range: every kept point has z index 0 (pillar encoders).

    Returns:
        voxel_of_point: (P,) int64 row of `coords`, -1 for dropped points.
        coords: (N, 4) int32 rows (b, z, y, x), unique, ascending by (b, x, y, z).
        order: (K,) int64, the kept points sorted by voxel, stable.
        offsets: (N + 1,) int64, voxel n holds the points order[offsets[n]:offsets[n + 1]].

    Raises:
        TypeError, ValueError: shape, dtype, device, batch size, voxel size or range.
        RuntimeError: a frame number outside the batch (CPU).
    """
    check_tensor("voxelize", "points", points, ("P", "F"), (torch.float32,))
    if points.shape[1] < 3:
        raise ValueError(f"voxelize: points must be (P, >= 3) float32, got {tuple(points.shape)}")
    frames = (points.shape[0],)
    check_tensor("voxelize", "frame_of_point", frame_of_point, frames, (torch.int32,))
    check_same_device("voxelize", points=points, frame_of_point=frame_of_point)
    if batch_size < 1:
        raise ValueError(f"voxelize: batch_size must be >= 1, got {batch_size}")
    grid_size = voxel_grid_size(voxel_size, point_cloud_range, owner="voxelize")
    voxel_of_point, coords, order, offsets = native.voxelize(
        points.detach().contiguous(),
        frame_of_point.contiguous(),
        batch_size,
        list(voxel_size),
        list(point_cloud_range[:3]),
        list(grid_size),
        check_z,
    )
    return voxel_of_point, coords, order, offsets


@fake_kernel("voxelize")
def _fake(
    points: Tensor,
    frame_of_point: Tensor,
    batch_size: int,
    voxel_size: list[float],
    lower: list[float],
    grid_size: list[int],
    check_z: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    context = torch.library.get_ctx()
    kept, voxels = context.new_dynamic_size(), context.new_dynamic_size()
    return (
        points.new_empty(points.shape[0], dtype=torch.int64),
        points.new_empty((voxels, 4), dtype=torch.int32),
        points.new_empty(kept, dtype=torch.int64),
        points.new_empty(voxels + 1, dtype=torch.int64),
    )
