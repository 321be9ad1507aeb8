"""DSVT's set partition in torch operators, the way of Haiyang-W/DSVT's input layer."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Windows of one partition; all sizes in cells, order x, y, z."""

    shape: tuple[int, int, int]
    window: tuple[int, int, int]
    shift: tuple[int, int, int]
    set_size: int


def official_style_sets(
    window_of_voxel: Tensor, inner: Tensor, grid: Grid
) -> tuple[Tensor, Tensor]:
    """Build the set tables through a dense buffer of windows x cells, one sort per order.

    Args:
        window_of_voxel, inner: of `official_style_windows`.
        grid: windows and set size.

    Returns:
        Table of voxels (2, sets, S) int64, y-major then x-major, and its mask of repeats.
    """
    wx, wy, wz = grid.window
    ids, window_of_voxel = torch.unique(window_of_voxel, return_inverse=True)
    counts = torch.bincount(window_of_voxel, minlength=ids.shape[0])
    sets_of_window = torch.ceil(counts / grid.set_size).long()
    window_of_set = torch.repeat_interleave(sets_of_window)
    set_in_window = torch.arange(window_of_set.shape[0], device=inner.device)
    set_in_window = set_in_window - (sets_of_window.cumsum(0) - sets_of_window)[window_of_set]

    slot_in_set = torch.arange(grid.set_size, device=inner.device)
    slots = set_in_window[:, None] * grid.set_size + slot_in_set[None]
    slots_of_window = (sets_of_window[window_of_set] * grid.set_size).double()
    place = torch.floor(slots * counts[window_of_set][:, None] / slots_of_window[:, None]).long()
    capacity = wx * wy * wz
    index = window_of_set[:, None] * capacity + place
    x, y, z = inner.unbind(1)
    tables = []
    for key in (y * wx * wz + x * wz + z, x * wy * wz + y * wz + z):
        order = torch.argsort(window_of_voxel * capacity + key)
        rank = _rank_in_window(window_of_voxel[order])
        buffer = ids.new_full((ids.shape[0] * capacity,), -1)
        buffer[window_of_voxel[order] * capacity + rank] = order
        tables.append(buffer[index])
    table = torch.stack(tables)
    repeated = torch.zeros_like(table, dtype=torch.bool)
    repeated[:, :, 1:] = table[:, :, 1:] == table[:, :, :-1]
    return table, repeated


def official_style_windows(coords: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Find the windows of voxels.

    Args:
        coords: (N, 4) int32 rows (b, z, y, x).
        grid: windows.

    Returns:
        Window id (N,) of each voxel, and its cell (N, 3) x, y, z inside the window, int64.
    """
    window = torch.tensor(grid.window, device=coords.device)
    shift = torch.tensor(grid.shift, device=coords.device)
    shifted = coords[:, [3, 2, 1]].long() + shift
    place = torch.div(shifted, window, rounding_mode="floor")
    per_axis = [-(-cells // size) + 1 for cells, size in zip(grid.shape, grid.window, strict=True)]
    _, ny, nz = per_axis
    frame = coords[:, 0].long() * per_axis[0]
    return ((frame + place[:, 0]) * ny + place[:, 1]) * nz + place[:, 2], shifted % window


def _rank_in_window(sorted_windows: Tensor) -> Tensor:
    """Number the voxels of each window 0, 1, ..., given window ids in ascending order."""
    counts = torch.bincount(sorted_windows)
    first = counts.cumsum(0) - counts
    place = torch.arange(sorted_windows.shape[0], device=sorted_windows.device)
    return place - first[sorted_windows]
