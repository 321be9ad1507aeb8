"""Benchmark rows of the window and set partition."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from perception3d.benchmark.peers.set_partition import (
    Grid,
    official_style_sets,
    official_style_windows,
)
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.workloads import Workload
from perception3d.ops import set_partition, voxelize, window_partition

WAYMO_RANGE = (-74.88, -74.88, -2.0, 74.88, 74.88, 4.0)
NUSCENES_RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)


@dataclass(frozen=True)
class Setting:
    """Grid and windows of an official DSVT config; sizes in order x, y, z."""

    voxel_size: tuple[float, float, float]
    extent: tuple[float, ...]
    raised: bool
    grids: tuple[Grid, Grid]


SETTINGS = {
    "dsvt_pillar_waymo": Setting(
        (0.32, 0.32, 6.0),
        WAYMO_RANGE,
        True,
        (
            Grid((468, 468, 1), (12, 12, 1), (0, 0, 0), 36),
            Grid((468, 468, 1), (24, 24, 1), (6, 6, 0), 36),
        ),
    ),
    "dsvt_voxel_waymo": Setting(
        (0.32, 0.32, 0.1875),
        WAYMO_RANGE,
        True,
        (
            Grid((468, 468, 32), (12, 12, 32), (0, 0, 0), 48),
            Grid((468, 468, 32), (24, 24, 32), (6, 6, 0), 48),
        ),
    ),
    "dsvt_pillar_nuscenes": Setting(
        (0.3, 0.3, 8.0),
        NUSCENES_RANGE,
        False,
        (
            Grid((360, 360, 1), (30, 30, 1), (0, 0, 0), 90),
            Grid((360, 360, 1), (30, 30, 1), (15, 15, 0), 90),
        ),
    ),
}


def sets_of_grid(coords: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Partition into windows, then sets: our side of the row."""
    _, order, offsets, cells = window_partition(
        coords, 1, grid.shape[::-1], grid.window[::-1], grid.shift[::-1]
    )
    voxel_of_slot, repeated, *_ = set_partition(cells, order, offsets, grid.set_size)
    return voxel_of_slot, repeated


def _case(setting: Setting, workload: Workload) -> Case:
    points = workload.raised() if setting.raised else workload.points
    frame = torch.zeros(points.shape[0], dtype=torch.int32, device=points.device)
    _, coords, _, _ = voxelize(points, frame, 1, setting.voxel_size, setting.extent)

    def ours() -> list[tuple[Tensor, Tensor]]:
        return [sets_of_grid(coords, grid) for grid in setting.grids]

    def official() -> list[tuple[Tensor, Tensor]]:
        windows = [official_style_windows(coords, grid) for grid in setting.grids]
        return [
            official_style_sets(*found, grid)
            for found, grid in zip(windows, setting.grids, strict=True)
        ]

    tables = list(zip(ours(), official(), strict=True))
    equal = all(
        torch.equal(a, b) for left, right in tables for a, b in zip(left, right, strict=True)
    )
    written = sum(table.numel() * 9 for (table, _), _ in tables)
    return Case(
        ours=ours,
        peers={"official style, torch": official},
        max_error=0.0 if equal else float("inf"),
        floor_bytes=coords.numel() * 4 + written,
    )


ROWS = tuple(
    Row(
        "set_partition",
        name,
        partial(_case, setting),
        ("tiny", "tail", "f1", "f10", "w180"),
        required={"official style, torch": 4.0},
        required_cuda={"official style, torch": 5.0},
        aim_ms=0.8 if name == "dsvt_pillar_waymo" else None,
        aim_ms_cuda=0.025 if name == "dsvt_pillar_waymo" else None,
    )
    for name, setting in SETTINGS.items()
)
