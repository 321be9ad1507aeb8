"""Plain torch twin of `perception3d.ops.voxelize`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from perception3d.ops.voxel_grid import voxel_grid_size


def voxelize(
    points: Tensor,
    frame_of_point: Tensor,
    batch_size: int,
    voxel_size: Sequence[float],
    point_cloud_range: Sequence[float],
    check_z: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Find the voxel of every point; see `perception3d.ops.voxelize`."""
    nx, ny, nz = voxel_grid_size(voxel_size, point_cloud_range)
    cells = cells_of_points(points, voxel_size, point_cloud_range)
    finite = points[:, :3].isfinite().all(1)
    if not check_z:
        cells[:, 2] = 0
    keep = ((cells >= 0) & (cells < cells.new_tensor([nx, ny, nz]))).all(1) & finite
    kept_points = keep.nonzero().squeeze(1)
    x, y, z = cells[kept_points].long().unbind(1)
    key = ((frame_of_point[kept_points].long() * nx + x) * ny + y) * nz + z

    keys, voxel_of_kept, counts = torch.unique(key, return_inverse=True, return_counts=True)
    voxel_of_point = torch.full((points.shape[0],), -1, dtype=torch.int64, device=points.device)
    voxel_of_point[kept_points] = voxel_of_kept
    column = torch.div(keys, nz, rounding_mode="floor")
    line = torch.div(column, ny, rounding_mode="floor")
    frame = torch.div(line, nx, rounding_mode="floor")
    coords = torch.stack([frame, keys % nz, column % ny, line % nx], dim=1).int()
    order = kept_points[torch.argsort(voxel_of_kept, stable=True)]
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return voxel_of_point, coords, order, offsets


def cells_of_points(
    points: Tensor, voxel_size: Sequence[float], point_cloud_range: Sequence[float]
) -> Tensor:
    """Return float cell indices (P, 3), order x, y, z, not yet limited to the grid."""
    lower = points.new_tensor(list(point_cloud_range[:3]))
    size = points.new_tensor(list(voxel_size))
    return torch.floor((points[:, :3] - lower) / size)
