"""Plain torch twin of `perception3d.ops.hard_voxelize`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from perception3d.ops.reference.voxelize import voxelize


def hard_voxelize(
    points: Tensor,
    voxel_size: Sequence[float],
    point_cloud_range: Sequence[float],
    max_points: int,
    max_voxels: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the voxel of every point, first come; see `perception3d.ops.hard_voxelize`."""
    frame = torch.zeros(points.shape[0], dtype=torch.int32, device=points.device)
    voxel_of_point, coords, order, offsets = voxelize(
        points, frame, 1, voxel_size, point_cloud_range
    )
    # Renumber voxels by their first point, and keep the first `max_voxels`.
    by_arrival = torch.argsort(order[offsets[:-1]])[:max_voxels]
    number = torch.full((coords.shape[0],), -1, dtype=torch.int64, device=points.device)
    number[by_arrival] = torch.arange(by_arrival.shape[0], device=points.device)

    sorted_voxel = voxel_of_point[order]
    place_in_voxel = torch.arange(order.shape[0], device=points.device) - offsets[sorted_voxel]
    kept = place_in_voxel < max_points
    result = torch.full_like(voxel_of_point, -1)
    result[order[kept]] = number[sorted_voxel[kept]]
    num_points = offsets.diff().clamp(max=max_points)[by_arrival]
    return result, coords[by_arrival], num_points
