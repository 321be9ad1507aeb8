"""Groups voxels by the window they lie in."""

from collections.abc import Sequence

import torch
from torch import Tensor

from perception3d.checks import check_tensor
from perception3d.ops.library import fake_kernel, load_library

native = load_library()


def window_partition(
    coords: Tensor,
    batch_size: int,
    spatial_shape: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int],
    *,
    axis_order: str = "xyz",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Group voxels by window; windows that hold none do not count.

    A voxel at cell c lies in window floor((c + shift) / window), per axis, at the cell
    (c + shift) mod window of it, which is never negative.

    Args:
        coords: (N, 4) int32 rows (b, z, y, x).
        batch_size: number of frames.
        spatial_shape: grid size in cells, order z, y, x.
        window: window size in cells, order z, y, x.
        shift: cells added before the division, order z, y, x; may be negative.
        axis_order: window axes from slowest to fastest in the numbering of windows, after the
            batch index: "xyz" or "zyx".

    Returns:
        window_of_voxel: (N,) int64, number of the window of each voxel, 0..W-1.
        order: (N,) int64, voxels sorted by window, stable.
        offsets: (W + 1,) int64, window w holds the voxels order[offsets[w]:offsets[w + 1]].
        cell_in_window: (N, 3) int32, cell inside the window, order z, y, x.

    Raises:
        TypeError, ValueError: shape, dtype, sizes below 1, or an unknown axis order.
        RuntimeError: a voxel outside the grid or the batch (CPU).
    """
    check_tensor("window_partition", "coords", coords, ("N", 4), (torch.int32,))
    if batch_size < 1:
        raise ValueError(f"window_partition: batch_size must be >= 1, got {batch_size}")
    _check_cells("spatial_shape", spatial_shape, smallest=1)
    _check_cells("window", window, smallest=1)
    _check_cells("shift", shift, smallest=-(2**31))
    if axis_order not in ("xyz", "zyx"):
        raise ValueError(f"window_partition: axis_order must be 'xyz' or 'zyx', got {axis_order!r}")
    tables = native.window_partition(
        coords.contiguous(),
        batch_size,
        list(spatial_shape),
        list(window),
        list(shift),
        axis_order == "xyz",
    )
    window_of_voxel, order, offsets, cell_in_window = tables
    return window_of_voxel, order, offsets, cell_in_window


def _check_cells(name: str, cells: Sequence[int], smallest: int) -> None:
    if len(cells) != 3 or min(cells) < smallest or max(cells) >= 2**31:
        bound = f" >= {smallest}" if smallest > 0 else ""
        raise ValueError(
            f"window_partition: {name} must be three cell counts{bound} (z, y, x), "
            f"got {tuple(cells)}"
        )


@fake_kernel("window_partition")
def _fake(
    coords: Tensor,
    batch_size: int,
    spatial_shape: list[int],
    window: list[int],
    shift: list[int],
    x_slowest: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    voxels = coords.shape[0]
    offsets = torch.library.get_ctx().new_dynamic_size(min=1)  # windows + 1
    return (
        coords.new_empty(voxels, dtype=torch.int64),
        coords.new_empty(voxels, dtype=torch.int64),
        coords.new_empty(offsets, dtype=torch.int64),
        coords.new_empty((voxels, 3)),
    )
