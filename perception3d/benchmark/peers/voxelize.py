"""Voxelisation with the mean of each voxel's points, as done elsewhere."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from perception3d.ops import voxel_grid_size


def _cells(points: Tensor, size: Sequence[float], extent: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return int64 cells (K, 3) of the points inside the grid, and those points."""
    grid = torch.tensor(voxel_grid_size(size, extent), device=points.device)
    lower, step = points.new_tensor(extent[:3]), points.new_tensor(size)
    cells = torch.floor((points[:, :3] - lower) / step).long()
    inside = ((cells >= 0) & (cells < grid)).all(dim=1)
    return cells[inside], points[inside]


def unique_of_keys(points: Tensor, size: Sequence[float], extent: Sequence[float]) -> Tensor:
    """Merge by torch.unique of one key per point, then index_add (the dynamic encoders' way)."""
    cells, kept = _cells(points, size, extent)
    _, ny, nz = voxel_grid_size(size, extent)
    key = (cells[:, 0] * ny + cells[:, 1]) * nz + cells[:, 2]
    keys, voxel, counts = torch.unique(key, return_inverse=True, return_counts=True)
    total = kept.new_zeros((keys.shape[0], kept.shape[1])).index_add_(0, voxel, kept)
    mean: Tensor = total / counts[:, None]
    return mean


def unique_of_rows(points: Tensor, size: Sequence[float], extent: Sequence[float]) -> Tensor:
    """Merge by torch.unique of coordinate rows (open-mmlab/mmcv: dynamic_scatter's way)."""
    cells, kept = _cells(points, size, extent)
    rows, voxel, counts = torch.unique(cells, dim=0, return_inverse=True, return_counts=True)
    total = kept.new_zeros((rows.shape[0], kept.shape[1])).index_add_(0, voxel, kept)
    mean: Tensor = total / counts[:, None]
    return mean


def numpy_unique(points: Tensor, size: Sequence[float], extent: Sequence[float]) -> Tensor:
    """Merge by numpy.unique, then one weighted bincount per column."""
    array = points.numpy()
    grid = np.array(voxel_grid_size(size, extent))
    lower, step = np.array(extent[:3], np.float32), np.array(size, np.float32)
    cells = np.floor((array[:, :3] - lower) / step).astype(np.int64)
    inside = ((cells >= 0) & (cells < grid)).all(axis=1)
    cells, kept = cells[inside], array[inside]
    key = (cells[:, 0] * grid[1] + cells[:, 1]) * grid[2] + cells[:, 2]
    keys, voxel, counts = np.unique(key, return_inverse=True, return_counts=True)
    columns = [np.bincount(voxel, kept[:, c], len(keys)) / counts for c in range(kept.shape[1])]
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))


def point_to_voxel(
    points: Tensor, size: Sequence[float], extent: Sequence[float]
) -> Callable[[], object] | None:
    """Return a call of spconv's CPU voxeliser (first-come, no mean), None without spconv."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # spconv's, about torch.cuda.amp
            from spconv.pytorch.utils import PointToVoxel
    except ImportError:
        return None
    voxeliser = PointToVoxel(list(size), list(extent), points.shape[1], 300_000, 10)
    return lambda: voxeliser(points)
