"""Benchmark rows of the sub-manifold index and of the convolutions that read it."""

from collections.abc import Callable
from functools import partial
from math import prod

import torch
from torch import Tensor

from perception3d.benchmark.measure import Candidate
from perception3d.benchmark.peers import sparse_conv as peers
from perception3d.benchmark.peers.sparse_conv import Grid
from perception3d.benchmark.row import Case, Row, installed
from perception3d.benchmark.rows_voxels import relative_error
from perception3d.benchmark.workloads import Workload
from perception3d.ops import depthwise_conv, subm_conv, subm_index, voxelize
from perception3d.ops.reference.depthwise_conv import depthwise_conv as reference_depthwise
from perception3d.ops.reference.subm_conv import subm_conv as reference_conv
from perception3d.ops.reference.subm_index import subm_index as reference_index

# ScatterFormer on Waymo (skyhehe123/ScatterFormer: tools/cfgs/waymo_models/scatterformer.yaml);
# its stem has one more plane of cells than the range.
VOXEL_SIZE = (0.32, 0.32, 0.1875)
EXTENT = (-76.8, -76.8, -2.0, 76.8, 76.8, 4.0)
SHAPE = (33, 480, 480)
CUBE = (3, 3, 3)
WINDOW_KERNELS = (CUBE, (1, 1, 13), (1, 13, 1))
WORKLOADS = ("tiny", "f1", "f10", "w180")

Leaves = list[Tensor]
Run = Callable[[Leaves], Tensor]


def _grid(workload: Workload, kernel: tuple[int, int, int]) -> Grid:
    points = workload.raised()
    frame = torch.zeros(points.shape[0], dtype=torch.int32, device=points.device)
    _, coords, _, _ = voxelize(points, frame, 1, VOXEL_SIZE, EXTENT)
    return Grid(coords, SHAPE, kernel)


def _index(grid: Grid) -> Tensor:
    return subm_index(grid.coords, 1, grid.shape, grid.kernel)


def _random(*shape: int, workload: Workload, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(shape, generator=generator).to(workload.device, dtype)


def _index_case(kernel: tuple[int, int, int], workload: Workload) -> Case:
    grid = _grid(workload, kernel)
    searched = partial(reference_index, grid.coords, 1, grid.shape, kernel)
    return Case(
        ours=partial(_index, grid),
        peers=installed({"spconv": peers.spconv_index(grid), "torch.searchsorted": searched}),
        max_error=0.0 if torch.equal(_index(grid), searched()) else float("inf"),
        floor_bytes=4 * (grid.coords.numel() + grid.coords.shape[0] * prod(kernel)),
    )


def _with_gradients(run: Run, leaves: Leaves, upstream: Tensor) -> list[Tensor]:
    """Result and gradients of all leaves."""
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    result = run(leaves)
    return [result.detach(), *torch.autograd.grad(result, leaves, upstream)]


def _candidate(run: Run, leaves: Leaves, upstream: Tensor | None) -> Candidate:
    """Return a call: forward, or with an upstream gradient forward and backward."""
    if upstream is not None:
        return partial(_with_gradients, run, leaves, upstream)

    def forward() -> Tensor:
        with torch.no_grad():
            return run(leaves)

    return forward


def _worst(run: Run, reference: Run, leaves: Leaves, upstream: Tensor | None) -> float:
    """Return the largest relative error against the reference in float64."""
    wide = [leaf.double() for leaf in leaves]
    if upstream is None:
        return relative_error(run(leaves), reference(wide))
    ours = _with_gradients(run, leaves, upstream)
    wanted = _with_gradients(reference, wide, upstream.double())
    return max(relative_error(a, b) for a, b in zip(ours, wanted, strict=True))


def _bytes(leaves: Leaves, tables: list[Tensor], result: Tensor, backward: bool) -> int:
    """Bytes that must move: leaves, tables and result once, gradients of them as well."""
    numbers = sum(leaf.numel() for leaf in leaves) + result.numel()
    index = sum(4 * table.numel() for table in tables)
    return (2 if backward else 1) * (numbers * result.element_size() + index)


def _depthwise_case(
    kernels: tuple[tuple[int, int, int], ...],
    channels: int,
    passed: int,
    dtype: torch.dtype,
    backward: bool,
    workload: Workload,
) -> Case:
    """Kernels on `channels` channels each, then `passed` channels, and the residual if passed."""
    tables = [_index(_grid(workload, kernel)) for kernel in kernels]
    rows, columns = tables[0].shape[0], channels * len(kernels) + passed
    features = _random(rows, columns, workload=workload, dtype=dtype)
    weights = [
        _random(table.shape[1], channels, workload=workload, dtype=dtype) for table in tables
    ]
    upstream = _random(rows, columns, workload=workload, dtype=dtype) if backward else None
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
        ours=_candidate(ours, leaves, upstream),
        peers={"torch gather": _candidate(gathered, leaves, upstream)},
        max_error=_worst(ours, reference, leaves, upstream),
        floor_bytes=_bytes(leaves, tables, features, backward),
        floor_flops=(6 if backward else 2) * pairs * channels,
    )


def _conv_case(channels: int, dtype: torch.dtype, backward: bool, workload: Workload) -> Case:
    grid = _grid(workload, CUBE)
    neighbours = _index(grid)
    rows, taps = neighbours.shape
    features = _random(rows, channels, workload=workload, dtype=dtype)
    weight = _random(taps, channels, channels, workload=workload, dtype=dtype)
    upstream = _random(rows, channels, workload=workload, dtype=dtype) if backward else None
    present = neighbours.long().unbind(1)
    pairs = [(found[found >= 0], (found >= 0).nonzero().flatten()) for found in present]

    def ours(leaves: Leaves) -> Tensor:
        return subm_conv(leaves[0], neighbours, leaves[1])

    def reference(leaves: Leaves) -> Tensor:
        return reference_conv(leaves[0], neighbours, leaves[1])

    def gathered(leaves: Leaves) -> Tensor:
        return peers.gather_and_multiply(leaves[0], pairs, leaves[1])

    leaves = [features, weight]
    flops = 2 * sum(source.shape[0] for source, _ in pairs) * channels * channels
    return Case(
        ours=_candidate(ours, leaves, upstream),
        peers=installed(
            {
                "spconv": _spconv_candidate(grid, features, weight, upstream),
                "torch gather, mm, index_add": _candidate(gathered, leaves, upstream),
            }
        ),
        max_error=_worst(ours, reference, leaves, upstream),
        floor_bytes=_bytes(leaves, [neighbours], features, backward),
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
    stored = weight.permute(2, 0, 1).reshape(weight.shape[2], *CUBE, weight.shape[1])
    parameter = torch.nn.Parameter(stored.contiguous())
    leaf = features.detach().requires_grad_(upstream is not None)
    convolve = peers.spconv_conv(grid, leaf, parameter)
    if convolve is None or upstream is not None:
        return None if convolve is None else partial(_pull, convolve, [leaf, parameter], upstream)

    def forward() -> Tensor:
        with torch.no_grad():
            return convolve()

    return forward


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


def _conv_rows() -> list[Row]:
    """Return the 128-channel convolution of ScatterFormer's stem."""
    rows = []
    for direction in ("forward", "both"):
        for dtype, name, tolerance in [
            (torch.float32, "float32", 1e-5),
            (torch.bfloat16, "bfloat16", 1e-2),
        ]:
            backward, single = direction == "both", name == "float32"
            rows.append(
                Row(
                    "subm_conv",
                    "128",
                    partial(_conv_case, 128, dtype, backward),
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
    return rows


ROWS = (
    Row(
        "subm_index",
        "scatterformer_3x3x3",
        partial(_index_case, CUBE),
        WORKLOADS,
        required={"spconv": 3.0},
        required_cuda={"spconv": 1.0},
        aim_ms=1.5,
        aim_ms_cuda=0.03,
    ),
    Row("subm_index", "scatterformer_1x1x13", partial(_index_case, (1, 1, 13)), WORKLOADS),
    *_depthwise_rows(),
    *_conv_rows(),
)
