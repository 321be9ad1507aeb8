"""What the benchmark rows of sparse convolutions share: voxels, gradients, errors, bytes."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from perception3d.benchmark.measure import Candidate
from perception3d.benchmark.peers.sparse_conv import Grid
from perception3d.benchmark.rows_voxels import relative_error
from perception3d.benchmark.workloads import Workload
from perception3d.ops import subm_index, voxelize

# ScatterFormer on Waymo (skyhehe123/ScatterFormer: tools/cfgs/waymo_models/scatterformer.yaml);
# its stem has one more plane of cells than the range.
VOXEL_SIZE = (0.32, 0.32, 0.1875)
EXTENT = (-76.8, -76.8, -2.0, 76.8, 76.8, 4.0)
SHAPE = (33, 480, 480)
CUBE = (3, 3, 3)
WORKLOADS = ("tiny", "f1", "f10", "w180")
# Largest relative error that may be timed.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2}

Leaves = list[Tensor]
Run = Callable[[Leaves], Tensor]


def stem_voxels(workload: Workload) -> Tensor:
    """Voxelise a cloud: (N, 4) int32 rows (b, z, y, x) of a grid of SHAPE cells."""
    points = workload.raised()
    frame = torch.zeros(points.shape[0], dtype=torch.int32, device=points.device)
    return voxelize(points, frame, 1, VOXEL_SIZE, EXTENT)[1]


def neighbours_of(grid: Grid) -> Tensor:
    """Return the table of a sub-manifold convolution."""
    return subm_index(grid.coords, 1, grid.shape, grid.kernel)


def random(*shape: int, workload: Workload, dtype: torch.dtype) -> Tensor:
    """Return the same numbers on every device."""
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(shape, generator=generator).to(workload.device, dtype)


def _with_gradients(run: Run, leaves: Leaves, upstream: Tensor) -> list[Tensor]:
    """Return the result and the gradients of all leaves."""
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    result = run(leaves)
    return [result.detach(), *torch.autograd.grad(result, leaves, upstream)]


def candidate(run: Run, leaves: Leaves, upstream: Tensor | None) -> Candidate:
    """Return a call: forward, or with an upstream gradient forward and backward."""
    if upstream is not None:
        return partial(_with_gradients, run, leaves, upstream)

    def forward() -> Tensor:
        with torch.no_grad():
            return run(leaves)

    return forward


def worst_error(run: Run, reference: Run, leaves: Leaves, upstream: Tensor | None) -> float:
    """Return the largest relative error against the reference in float64."""
    wide = [leaf.double() for leaf in leaves]
    if upstream is None:
        return relative_error(run(leaves), reference(wide))
    ours = _with_gradients(run, leaves, upstream)
    wanted = _with_gradients(reference, wide, upstream.double())
    return max(relative_error(a, b) for a, b in zip(ours, wanted, strict=True))


def moved_bytes(leaves: Leaves, tables: list[Tensor], result: Tensor, backward: bool) -> int:
    """Count what must move: leaves, tables and result once, gradients of them as well."""
    numbers = sum(leaf.numel() for leaf in leaves) + result.numel()
    index = sum(4 * table.numel() for table in tables)
    return (2 if backward else 1) * (numbers * result.element_size() + index)
