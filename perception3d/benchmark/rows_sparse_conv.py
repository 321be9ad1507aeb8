"""Benchmark rows of the indices of sparse convolutions and of the convolutions that read them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor

from perception3d.benchmark.convolution_case import (
    CUBE,
    SHAPE,
    TOLERANCES,
    WORKLOADS,
    Leaves,
    Run,
    candidate,
    moved_bytes,
    neighbours_of,
    random,
    stem_voxels,
    worst_error,
)
from perception3d.benchmark.measure import Candidate
from perception3d.benchmark.peers import sparse_conv as peers
from perception3d.benchmark.peers.sparse_conv import Grid
from perception3d.benchmark.row import Case, Row, installed
from perception3d.benchmark.workloads import Workload
from perception3d.ops import sparse_conv, sparse_index, subm_conv
from perception3d.ops.reference.sparse_conv import sparse_conv as reference_sparse
from perception3d.ops.reference.sparse_index import sparse_index as reference_outputs
from perception3d.ops.reference.subm_conv import subm_conv as reference_subm
from perception3d.ops.reference.subm_index import subm_index as reference_neighbours

# Setting -> kernel, stride, padding: the convolution that ends ScatterFormer's stem, and the usual
# step to half the resolution.
STRIDED = {
    "3x1x1_stride_2x1x1": ((3, 1, 1), (2, 1, 1), (0, 0, 0)),
    "3x3x3_stride_2": (CUBE, (2, 2, 2), (1, 1, 1)),
}
STRIDED_WORKLOADS = ("tiny", "f1", "f10")


def _neighbours_case(kernel: tuple[int, int, int], workload: Workload) -> Case:
    grid = Grid(stem_voxels(workload), SHAPE, kernel)
    searched = partial(reference_neighbours, grid.coords, 1, grid.shape, kernel)
    return Case(
        ours=partial(neighbours_of, grid),
        peers=installed({"spconv": peers.spconv_index(grid), "torch.searchsorted": searched}),
        max_error=0.0 if torch.equal(neighbours_of(grid), searched()) else float("inf"),
        floor_bytes=4 * (grid.coords.numel() + grid.coords.shape[0] * prod(kernel)),
    )


def _strided_grid(setting: str, workload: Workload) -> tuple[Grid, list[Tensor]]:
    """Return the voxels under a strided kernel, and its output coordinates and both tables."""
    kernel, stride, padding = STRIDED[setting]
    grid = Grid(stem_voxels(workload), SHAPE, kernel, stride, padding)
    return grid, list(sparse_index(grid.coords, 1, SHAPE, kernel, stride, padding))


def _outputs_case(setting: str, workload: Workload) -> Case:
    grid, tables = _strided_grid(setting, workload)
    arguments = (grid.coords, 1, SHAPE, *STRIDED[setting])
    found = partial(reference_outputs, *arguments)
    equal = all(torch.equal(a, b) for a, b in zip(tables, found(), strict=True))
    return Case(
        ours=partial(sparse_index, *arguments),
        peers=installed({"spconv": peers.spconv_index(grid), "torch.unique": found}),
        max_error=0.0 if equal else float("inf"),
        floor_bytes=4 * (grid.coords.numel() + sum(table.numel() for table in tables)),
    )


@dataclass(frozen=True)
class _Convolution:
    """One convolution, ours and the reference, and the table of its results' inputs."""

    grid: Grid
    inputs: Tensor
    tables: list[Tensor]
    ours: Run
    reference: Run


def _submanifold(workload: Workload) -> _Convolution:
    grid = Grid(stem_voxels(workload), SHAPE, CUBE)
    table = neighbours_of(grid)
    return _Convolution(
        grid,
        table,
        [table],
        lambda leaves: subm_conv(leaves[0], table, leaves[1]),
        lambda leaves: reference_subm(leaves[0], table, leaves[1]),
    )


def _strided(setting: str, workload: Workload) -> _Convolution:
    grid, (_, inputs, outputs) = _strided_grid(setting, workload)
    return _Convolution(
        grid,
        inputs,
        [inputs, outputs],
        lambda leaves: sparse_conv(leaves[0], inputs, outputs, leaves[1]),
        lambda leaves: reference_sparse(leaves[0], inputs, outputs, leaves[1]),
    )


def _conv_case(
    make: Callable[[Workload], _Convolution],
    channels: int,
    dtype: torch.dtype,
    backward: bool,
    workload: Workload,
) -> Case:
    conv = make(workload)
    rows, taps = conv.inputs.shape
    features = random(conv.grid.coords.shape[0], channels, workload=workload, dtype=dtype)
    weight = random(taps, channels, channels, workload=workload, dtype=dtype)
    result = random(rows, channels, workload=workload, dtype=dtype)
    upstream = result if backward else None
    present = conv.inputs.long().unbind(1)
    pairs = [(found[found >= 0], (found >= 0).nonzero().flatten()) for found in present]

    def gathered(leaves: Leaves) -> Tensor:
        return peers.gather_and_multiply(leaves[0], pairs, leaves[1], rows)

    leaves = [features, weight]
    flops = 2 * sum(source.shape[0] for source, _ in pairs) * channels * channels
    tables = conv.tables if backward else [conv.inputs]
    return Case(
        ours=candidate(conv.ours, leaves, upstream),
        peers=installed(
            {
                "spconv": _spconv_candidate(conv.grid, features, weight, upstream),
                "torch gather, mm, index_add": candidate(gathered, leaves, upstream),
            }
        ),
        max_error=worst_error(conv.ours, conv.reference, leaves, upstream),
        floor_bytes=moved_bytes(leaves, tables, result, backward),
        floor_flops=(3 if backward else 1) * flops,
    )


def _pull(convolve: Callable[[], Tensor], leaves: Leaves, upstream: Tensor | None) -> object:
    return torch.autograd.grad(convolve(), leaves, upstream)


def _spconv_candidate(
    grid: Grid, features: Tensor, weight: Tensor, upstream: Tensor | None
) -> Candidate | None:
    """Return spconv's layer on the same numbers; None where it is absent or lacks the dtype."""
    if features.dtype != torch.float32:
        return None
    stored = weight.permute(2, 0, 1).reshape(weight.shape[2], *grid.kernel, weight.shape[1])
    parameter = torch.nn.Parameter(stored.contiguous())
    leaf = features.detach().requires_grad_(upstream is not None)
    convolve = peers.spconv_conv(grid, leaf, parameter)
    if convolve is None or upstream is not None:
        return None if convolve is None else partial(_pull, convolve, [leaf, parameter], upstream)

    def forward() -> Tensor:
        with torch.no_grad():
            return convolve()

    return forward


def _conv_rows() -> list[Row]:
    """Return the 128-channel convolutions: sub-manifold in ScatterFormer's stem, and strided."""
    rows = []
    for direction in ("forward", "both"):
        for dtype, tolerance in TOLERANCES.items():
            backward, single = direction == "both", dtype == torch.float32
            name = str(dtype).removeprefix("torch.")
            rows.append(
                Row(
                    "subm_conv",
                    "128",
                    partial(_conv_case, _submanifold, 128, dtype, backward),
                    WORKLOADS,
                    tolerance=tolerance,
                    direction=direction,
                    dtype=name,
                    required={"spconv": 1.5} if single else {},
                    required_cuda={"spconv": 0.8} if single else {},
                    aim_ms=50.0 if single and not backward else None,
                    aim_ms_cuda=None if single or backward else 0.04,
                )
            )
            rows += [
                Row(
                    "sparse_conv",
                    f"{setting}_c128",
                    partial(_conv_case, partial(_strided, setting), 128, dtype, backward),
                    STRIDED_WORKLOADS,
                    tolerance=tolerance,
                    direction=direction,
                    dtype=name,
                )
                for setting in STRIDED
            ]
    return rows


ROWS = (
    Row(
        "subm_index",
        "scatterformer_3x3x3",
        partial(_neighbours_case, CUBE),
        WORKLOADS,
        required={"spconv": 3.0},
        required_cuda={"spconv": 1.0},
        aim_ms=1.5,
        aim_ms_cuda=0.03,
    ),
    Row("subm_index", "scatterformer_1x1x13", partial(_neighbours_case, (1, 1, 13)), WORKLOADS),
    *(
        Row("sparse_index", setting, partial(_outputs_case, setting), STRIDED_WORKLOADS)
        for setting in STRIDED
    ),
    *_conv_rows(),
)
