"""Replays window and set partition."""

import torch

from perception3d.layers.pooling import pool_cells
from perception3d.models.backbones.dsvt_stage import DSVTStage, check_stages
from perception3d.ops.window_partition import window_partition
from perception3d.parity.case import Case
from perception3d.structures import SparseVoxels

PartitionResults = dict[str, object]


def dsvt_stages(case: Case) -> list[DSVTStage]:
    """Return the stages that a case of the system dsvt describes."""
    config = case.config
    strides = [tuple(stride) for stride in config["downsample_stride_xyz"]] + [None]
    blocks = config.get("num_blocks", [1] * len(strides))
    return [
        DSVTStage(
            window=tuple(window),
            set_size=set_size,
            blocks=count,
            shifts=(tuple(shifts[0]), tuple(shifts[1])),
            pool_stride=stride,
        )
        for window, set_size, count, shifts, stride in zip(
            config["window_shape_xyz"],
            config["set_size"],
            blocks,
            config["shifts_xyz"],
            strides,
            strict=True,
        )
    ]


def replay_set_partition(case: Case, device: torch.device) -> PartitionResults:
    """Replay kind set_partition: windows, sets and pooled cells of every stage."""
    grid, hybrid = tuple(case.config["sparse_shape_xyz"]), tuple(case.config["hybrid_factor_xyz"])
    stages = dsvt_stages(case)
    coords = case.tensor("in.coords", device).int()
    voxels = SparseVoxels(
        torch.zeros(coords.shape[0], 1, device=device),
        coords,
        (grid[2], grid[1], grid[0]),
        case.config["batch_size"],
    )
    results: PartitionResults = {}
    for number, (stage, cells) in enumerate(
        zip(stages, check_stages(grid, stages, hybrid), strict=True)
    ):
        prefix = f"out.stage{number}"
        if number:
            results[f"{prefix}.coords"] = voxels.coords
        for partition, spec in enumerate(stage.partitions(cells, hybrid)):
            windows, sets = voxels.windows(spec), voxels.sets(spec, stage.set_size)
            results[f"{prefix}.shift{partition}.batch_win_inds"] = windows.window_of_voxel
            results[f"{prefix}.shift{partition}.coors_in_win_zyx"] = windows.cell_in_window
            results[f"{prefix}.shift{partition}.set_voxel_inds"] = sets.voxel_of_slot
            results[f"{prefix}.shift{partition}.set_voxel_mask"] = sets.repeated
        if stage.pool_stride is not None:
            x, y, z = stage.pool_stride
            pooled = pool_cells(voxels, (z, y, x))
            results[f"out.stage{number + 1}.pooling_mapping_index"] = pooled.cell_of_voxel
            results[f"out.stage{number + 1}.pooling_index_in_pool"] = pooled.slot_of_voxel
            voxels = SparseVoxels(
                torch.zeros(pooled.num_cells, 1, device=device),
                pooled.coords,
                pooled.spatial_shape,
                voxels.batch_size,
            )
    return results


def replay_window_partition(case: Case, device: torch.device) -> PartitionResults:
    """Replay kind window_partition: full-height windows numbered by (b, y, x)."""
    coords = case.tensor("in.coords", device).int()
    width, height, depth = case.config["grid_size_xyz"]
    window, shape = case.config["win_size"], (depth, height, width)
    window_of_voxel, order, offsets, _ = window_partition(
        coords,
        case.config["batch_size"],
        shape,
        (depth, window, window),
        (0, 0, 0),
        axis_order="zyx",
    )
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.shape[0], device=device)
    first = coords[order[offsets[:-1]]].long()
    return {
        "out.win_ids": window_of_voxel,
        "out.perm": order,
        "out.inv_perm": inverse,
        "out.win_ids_sorted": window_of_voxel[order],
        "out.counts": offsets.diff(),
        "out.offsets": offsets[:-1],
        "out.win_coords": torch.stack(
            [first[:, 0], first[:, 2] // window, first[:, 3] // window], 1
        ),
    }
