"""Replays voxelisation of points, dynamic and with limits."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from perception3d.ops import (
    hard_voxelize,
    segment_index,
    segment_reduce,
    voxel_grid_size,
    voxelize,
)
from perception3d.parity.case import Case, CaseError

Results = dict[str, object]

_COLUMN = {"b": 0, "z": 1, "y": 2, "x": 3}
_ASCENDING = " ascending"


def replay_voxelize(case: Case, device: torch.device) -> Results:
    """Replay kind voxelize: the float32 table of every grid."""
    config, points = case.config, case.tensor("in.points", device)
    frame_of_point = torch.zeros(points.shape[0], dtype=torch.int32, device=device)
    results: Results = {}
    for name, grid in config["grids"].items():
        size, extent = _grid(name, grid)
        _, coords, order, offsets = voxelize(points, frame_of_point, 1, size, extent)
        rows = _sort_rows(coords, config["row_order"])
        values = points[:, : config["mean_columns"]].contiguous()
        prefix = f"out.{name}.f32"
        results[f"{prefix}.coords"] = coords[rows]
        results[f"{prefix}.count"] = offsets.diff()[rows]
        results[f"{prefix}.mean"] = segment_reduce(values, order, offsets, "mean")[rows]
        results[f"{prefix}.num_points"] = order.shape[0]
    return results


def replay_voxelize_hard(case: Case, device: torch.device) -> Results:
    """Replay kind voxelize_hard: voxels in order of arrival, every set of limits."""
    config, points = case.config, case.tensor("in.points", device)
    if config.get("row_order", "first appearance") != "first appearance":
        raise CaseError(f"row_order must be 'first appearance', got {config['row_order']!r}")
    results: Results = {}
    for name, limits in config["sets"].items():
        size, extent = _grid(name, limits)
        voxel_of_point, coords, num_points = hard_voxelize(
            points, size, extent, limits["max_points"], limits["max_voxels"]
        )
        order, offsets = segment_index(voxel_of_point, coords.shape[0])
        results[f"out.{name}.coords"] = coords
        results[f"out.{name}.num_points"] = num_points
        results[f"out.{name}.mean"] = segment_reduce(points, order, offsets, "mean")
    return results


def _grid(name: str, grid: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Return voxel size and range; the number of cells, where stated, has to follow from them."""
    size, extent = grid["voxel_size_xyz"], grid["point_cloud_range"]
    cells = voxel_grid_size(size, extent, owner=name)
    if list(grid.get("grid_size_xyz", cells)) != list(cells):
        raise CaseError(f"grid {name} must have {grid['grid_size_xyz']} cells, ours has {cells}")
    return size, extent


def _sort_rows(coords: Tensor, row_order: str) -> Tensor:
    """Return the rows sorted as "z,y,x ascending" says, slowest column first."""
    names = row_order.removesuffix(_ASCENDING).split(",")
    if not row_order.endswith(_ASCENDING) or not set(names) <= set(_COLUMN):
        raise CaseError(f"row_order must name columns and 'ascending', got {row_order!r}")
    rows = torch.arange(coords.shape[0], device=coords.device)
    for name in reversed(names):
        rows = rows[torch.argsort(coords[rows, _COLUMN[name]], stable=True)]
    return rows
