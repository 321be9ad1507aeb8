"""The grid that a voxel size and a point cloud range define."""

import math
from collections.abc import Sequence

MAX_CELLS = 2**24  # beyond, float32 no longer tells neighbouring cells apart


def voxel_grid_size(
    voxel_size: Sequence[float], point_cloud_range: Sequence[float], *, owner: str = "voxel_grid"
) -> tuple[int, int, int]:
    """Return the number of cells per axis, round((max - min) / size).

    Args:
        voxel_size: size x, y, z in m.
        point_cloud_range: x, y, z minimum, then x, y, z maximum, in m.
        owner: operator named in error messages.

    Returns:
        Cells (X, Y, Z).

    Raises:
        ValueError: wrong lengths, a size that is not positive, an axis without a cell or with
            more than 2^24.
    """
    if len(voxel_size) != 3 or not all(math.isfinite(s) and s > 0 for s in voxel_size):
        raise ValueError(
            f"{owner}: voxel_size must be three sizes > 0 m (x, y, z), got {tuple(voxel_size)}"
        )
    if len(point_cloud_range) != 6 or not all(math.isfinite(v) for v in point_cloud_range):
        raise ValueError(
            f"{owner}: point_cloud_range must be (x, y, z minimum, x, y, z maximum) in m, "
            f"got {tuple(point_cloud_range)}"
        )
    lower, upper = point_cloud_range[:3], point_cloud_range[3:]
    cells = [
        round((high - low) / size) for low, high, size in zip(lower, upper, voxel_size, strict=True)
    ]
    if min(cells) < 1 or max(cells) > MAX_CELLS:
        raise ValueError(
            f"{owner}: point_cloud_range / voxel_size must give 1 to {MAX_CELLS} cells per axis, "
            f"got {tuple(cells)} (x, y, z)"
        )
    return cells[0], cells[1], cells[2]
