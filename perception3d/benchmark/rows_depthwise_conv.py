"""Benchmark rows of the depth-wise convolutions over neighbours."""

from functools import partial

import torch
from torch import Tensor

from perception3d.benchmark.convolution_case import (
    CUBE,
    SHAPE,
    WORKLOADS,
    Leaves,
    candidate,
    moved_bytes,
    neighbours_of,
    random,
    stem_voxels,
    worst_error,
)
from perception3d.benchmark.peers import sparse_conv as peers
from perception3d.benchmark.peers.sparse_conv import Grid
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.workloads import Workload
from perception3d.ops import depthwise_conv
from perception3d.ops.reference.depthwise_conv import depthwise_conv as reference_depthwise

WINDOW_KERNELS = (CUBE, (1, 1, 13), (1, 13, 1))


def _depthwise_case(
    kernels: tuple[tuple[int, int, int], ...],
    channels: int,
    passed: int,
    dtype: torch.dtype,
    backward: bool,
    workload: Workload,
) -> Case:
    """Kernels on `channels` channels each, then `passed` channels, and the residual if passed."""
    coords = stem_voxels(workload)
    tables = [neighbours_of(Grid(coords, SHAPE, kernel)) for kernel in kernels]
    rows, columns = tables[0].shape[0], channels * len(kernels) + passed
    features = random(rows, columns, workload=workload, dtype=dtype)
    weights = [random(table.shape[1], channels, workload=workload, dtype=dtype) for table in tables]
    upstream = random(rows, columns, workload=workload, dtype=dtype) if backward else None
    residual = passed > 0

    def groups(factors: Leaves) -> list[tuple[Tensor, Tensor, int]]:
        return [
            (table, factor, number * channels)
            for number, (table, factor) in enumerate(zip(tables, factors, strict=True))
        ]

    def ours(leaves: Leaves) -> Tensor:
        return depthwise_conv(leaves[0], groups(leaves[1:]), residual=residual)

    def reference(leaves: Leaves) -> Tensor:
        return reference_depthwise(leaves[0], groups(leaves[1:]), residual=residual)

    rows_of_tables = [table.long() for table in tables]

    def gathered(leaves: Leaves) -> Tensor:
        parts = list(torch.split(leaves[0], channels, dim=1))
        for number, table in enumerate(rows_of_tables):
            parts[number] = peers.gather_and_sum(parts[number], table, leaves[1 + number])
        result = torch.cat(parts, dim=1)
        return result + leaves[0] if residual else result

    leaves = [features, *weights]
    pairs = sum(int((table >= 0).sum()) for table in tables)
    return Case(
        ours=candidate(ours, leaves, upstream),
        peers={"torch gather": candidate(gathered, leaves, upstream)},
        max_error=worst_error(ours, reference, leaves, upstream),
        floor_bytes=moved_bytes(leaves, tables, features, backward),
        floor_flops=(6 if backward else 2) * pairs * channels,
    )


def _depthwise_rows() -> list[Row]:
    """Return ScatterFormer's 3x3x3 kernel alone, and all that its layer does after attention."""
    rows = []
    for setting, kernels, passed in [
        ("3x3x3_c32", (CUBE,), 0),
        ("window_c128", WINDOW_KERNELS, 32),
    ]:
        for direction in ("forward", "both"):
            for dtype, name, tolerance in [
                (torch.float32, "float32", 1e-5),
                (torch.bfloat16, "bfloat16", 1e-2),
            ]:
                backward = direction == "both"
                judged = setting == "3x3x3_c32" and name == "float32"
                rows.append(
                    Row(
                        "depthwise_conv",
                        setting,
                        partial(_depthwise_case, kernels, 32, passed, dtype, backward),
                        WORKLOADS,
                        tolerance=tolerance,
                        direction=direction,
                        dtype=name,
                        required={"torch gather": 20.0} if judged else {},
                        aim_ms=2.0 if judged and not backward else None,
                        aim_ms_cuda=0.008 if judged and not backward else None,
                    )
                )
    return rows


ROWS = tuple(_depthwise_rows())
