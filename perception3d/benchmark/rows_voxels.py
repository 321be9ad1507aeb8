"""Benchmark rows of voxelisation and of the reductions of points to voxels."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from perception3d.benchmark.measure import Candidate
from perception3d.benchmark.peers import voxelize as voxelize_peers
from perception3d.benchmark.peers.segment_reduce import torch_scatter_csr
from perception3d.benchmark.row import Case, Row, installed
from perception3d.benchmark.workloads import Workload
from perception3d.ops import segment_reduce, voxelize
from perception3d.ops.reference.segment_reduce import segment_reduce as reference_reduce
from perception3d.ops.reference.voxelize import voxelize as reference_voxelize

NUSCENES_RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
NUSCENES_SIZES = {
    "dsvt_pillar_nuscenes": (0.3, 0.3, 8.0),
    "scatterformer_nuscenes": (0.3, 0.3, 0.2),
    "fine_nuscenes": (0.075, 0.075, 0.2),
}
ALL = ("tiny", "f1", "f10", "w180")


def mean_of_voxels(
    points: Tensor, frame: Tensor, size: Sequence[float], extent: Sequence[float]
) -> Tensor:
    """Voxelise one frame and average the points of each voxel: our side of the rows."""
    _, _, order, offsets = voxelize(points, frame, 1, size, extent)
    return segment_reduce(points, order, offsets, "mean")


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """Return the largest error, relative to the largest reference value."""
    if ours.shape != reference.shape:
        return float("inf")
    if ours.numel() == 0:
        return 0.0
    scale = reference.abs().max().clamp(min=1e-12)
    return float((ours.double() - reference).abs().max() / scale)


def _voxelize_case(size: Sequence[float], workload: Workload) -> Case:
    points, extent = workload.points, NUSCENES_RANGE
    on_cpu = workload.device.type == "cpu"
    candidates: dict[str, Candidate | None] = {
        "torch.unique of keys": partial(voxelize_peers.unique_of_keys, points, size, extent),
        "torch.unique of rows": partial(voxelize_peers.unique_of_rows, points, size, extent),
        "numpy.unique": partial(voxelize_peers.numpy_unique, points, size, extent)
        if on_cpu
        else None,
        "spconv PointToVoxel (no mean)": (
            voxelize_peers.point_to_voxel(points, size, extent) if on_cpu else None
        ),
    }
    frame = torch.zeros(points.shape[0], dtype=torch.int32, device=points.device)
    _, coords, order, offsets = reference_voxelize(points, frame, 1, size, extent)
    exact = reference_reduce(points.double(), order, offsets, "mean")
    ours = partial(mean_of_voxels, points, frame, size, extent)
    return Case(
        ours=ours,
        peers=installed(candidates),
        max_error=relative_error(ours(), exact),
        floor_bytes=4 * points.numel() + coords.shape[0] * (16 + 4 * points.shape[1]),
    )


def _segment_case(channels: int, reduce: str, backward: bool, workload: Workload) -> Case:
    """Encoder features of points to features of voxels."""
    points = workload.points
    frame = torch.zeros(points.shape[0], dtype=torch.int32, device=points.device)
    size = NUSCENES_SIZES["dsvt_pillar_nuscenes"]
    voxel_of_point, coords, order, offsets = voxelize(points, frame, 1, size, NUSCENES_RANGE)
    voxel = voxel_of_point[order]
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(order.shape[0], channels, generator=generator)
    values = values.to(workload.device).requires_grad_(backward)
    # The encoder has dropped the points outside the grid: rows are the kept points.
    by_voxel = torch.argsort(voxel, stable=True)
    voxels = coords.shape[0]
    grad = torch.randn(voxels, channels, generator=generator).to(workload.device)

    def ours() -> Tensor:
        result = segment_reduce(values, by_voxel, offsets, reduce)
        return torch.autograd.grad(result, values, grad)[0] if backward else result

    def scatter() -> Tensor:
        kind = {"max": "amax", "mean": "mean"}[reduce]
        index = voxel[:, None].expand_as(values)
        result = values.new_zeros((voxels, channels)).scatter_reduce(
            0, index, values, kind, include_self=False
        )
        return torch.autograd.grad(result, values, grad)[0] if backward else result

    double = values.detach().double().requires_grad_(backward)
    exact = reference_reduce(double, by_voxel, offsets, reduce)
    if backward:
        exact = torch.autograd.grad(exact, double, grad.double())[0]
    moved = (order.shape[0] + voxels) * channels * 4 * (2 if backward else 1)
    peers = {
        "torch.scatter_reduce": scatter,
        "torch_scatter segment_csr": torch_scatter_csr(
            values, by_voxel, offsets, reduce, grad if backward else None
        ),
    }
    return Case(ours, installed(peers), relative_error(ours(), exact), moved)


ROWS = (
    *(
        Row(
            "voxelize",
            setting,
            partial(_voxelize_case, size),
            ALL,
            tolerance=1e-5,
            required={"torch.unique of keys": 3.0},
            required_cuda={"torch.unique of keys": 3.0},
            aim_ms=1.2 if setting == "dsvt_pillar_nuscenes" else None,
            aim_ms_cuda=0.015 if setting == "dsvt_pillar_nuscenes" else None,
        )
        for setting, size in NUSCENES_SIZES.items()
    ),
    *(
        Row(
            "segment_reduce",
            f"{reduce}_{channels}",
            partial(_segment_case, channels, reduce, backward),
            ("tiny", "f1", "f10"),
            tolerance=1e-5,
            direction="both" if backward else "forward",
        )
        for channels in (64, 128)
        for reduce in ("mean", "max")
        for backward in (False, True)
    ),
)
