"""Benchmark rows of scattered linear attention."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from perception3d.benchmark.peers import linear_attention as peers
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.rows_voxels import relative_error
from perception3d.benchmark.workloads import Workload
from perception3d.ops import scattered_linear_attention_qkv, voxelize, window_partition
from perception3d.ops.reference.scattered_linear_attention import (
    scattered_linear_attention_qkv as reference,
)

VOXEL_SIZE = (0.32, 0.32, 0.1875)
SCATTERFORMER_RANGE = (-76.8, -76.8, -2.0, 76.8, 76.8, 4.0)
# The range that the tail workload was made for: all of its 2,000 voxels lie in one window.
TAIL_RANGE = (-74.88, -74.88, -2.0, 74.88, 74.88, 4.0)
WINDOW = 12
HEADS, WIDTH = 4, 32
PADDED_BYTES = 2**31


def stage_coords(coords: Tensor, cells_z: int) -> Tensor:
    """Return the voxels that ScatterFormer's stem hands to its first stage.

    Its last convolution has kernel (3, 1, 1) and stride (2, 1, 1) without padding, on a grid with
    one more cell in z: output cell z sees the input cells 2 z .. 2 z + 2, and there is a voxel
    wherever it sees one.

    Args:
        coords: (N, 4) int32 rows (b, z, y, x).
        cells_z: cells of the input grid in z, the added one not counted.

    Returns:
        (M, 4) int32, ascending by (b, z, y, x).
    """
    outputs = cells_z // 2
    found = []
    for tap in range(3):
        first = coords[:, 1] - tap
        seen = (first >= 0) & (first % 2 == 0) & (first // 2 < outputs)
        rows = coords[seen].clone()
        rows[:, 1] = first[seen] // 2
        found.append(rows)
    unique: Tensor = torch.unique(torch.cat(found), dim=0)
    return unique


def window_offsets(workload: Workload) -> Tensor:
    """Return where the windows of stage 1 of ScatterFormer (Waymo) begin, (W + 1,) int64."""
    points = workload.raised().cpu()
    tail = workload.name == "tail"
    extent = TAIL_RANGE if tail else SCATTERFORMER_RANGE
    frame = torch.zeros(points.shape[0], dtype=torch.int32)
    _, coords, _, _ = voxelize(points, frame, 1, VOXEL_SIZE, extent)
    side, height = (468, 32) if tail else (480, 16)
    if not tail:
        coords = stage_coords(coords, 32)
    shape, window = (height, side, side), (height, WINDOW, WINDOW)
    _, _, offsets, _ = window_partition(coords, 1, shape, window, (0, 0, 0), axis_order="zyx")
    return offsets.to(workload.device)


def _case(dtype: torch.dtype, backward: bool, workload: Workload) -> Case:
    offsets = window_offsets(workload)
    windows = peers.SortedWindows(offsets)
    rows = sum(windows.lengths)
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(rows, 3, HEADS, WIDTH, generator=generator).to(workload.device, dtype)
    grad = torch.randn(rows, HEADS, WIDTH, generator=generator).to(workload.device, dtype)
    qkv.requires_grad_(backward)

    def finished(result: Tensor) -> Tensor:
        return torch.autograd.grad(result, qkv, grad)[0] if backward else result

    def ours() -> Tensor:
        return finished(scattered_linear_attention_qkv(qkv, offsets))

    def peer(form: Callable[..., Tensor]) -> Tensor:
        return finished(form(*qkv.unbind(1), windows))

    fits = 4 * windows.slots * HEADS * WIDTH * dtype.itemsize * (3 if backward else 1)
    forms: dict[str, Callable[..., Tensor] | None] = {
        "outer product + index_add": peers.outer_products,
        "loop over windows": peers.loop_over_slices,
        "loop over windows, one split": peers.loop_over_splits,
        "padded bmm": peers.padded if fits <= PADDED_BYTES else None,
    }
    exact = qkv.detach().double().requires_grad_(backward)
    wanted = reference(exact, offsets)
    if backward:
        wanted = torch.autograd.grad(wanted, exact, grad.double())[0]
    numbers = rows * HEADS * WIDTH
    return Case(
        ours=ours,
        peers={name: partial(peer, form) for name, form in forms.items() if form is not None},
        max_error=relative_error(ours(), wanted.detach()),
        floor_bytes=numbers * dtype.itemsize * (4 + 7 if backward else 4),
        floor_flops=numbers * WIDTH * (4 + 10 if backward else 4),
    )


def _row(dtype: torch.dtype, backward: bool) -> Row:
    judged = dtype == torch.float32
    required = {
        False: {"loop over windows": 5.0},
        True: {"outer product + index_add": 10.0, "loop over windows": 10.0},
    }
    return Row(
        "scattered_linear_attention",
        "scatterformer_waymo",
        partial(_case, dtype, backward),
        ("tiny", "tail", "f1", "f10", "w180"),
        tolerance=1e-5 if judged else 1e-2,
        direction="both" if backward else "forward",
        required=required[backward] if judged else {},
        dtype=str(dtype).removeprefix("torch."),
        aim_ms=(40.0 if backward else 5.0) if judged else None,
        aim_ms_cuda=0.07 if backward else 0.02,
    )


ROWS = tuple(
    _row(dtype, backward) for dtype in (torch.float32, torch.bfloat16) for backward in (False, True)
)
