"""Plain torch twin of `perception3d.ops.window_partition`."""

from collections.abc import Sequence

import torch
from torch import Tensor


def window_partition(
    coords: Tensor,
    batch_size: int,
    spatial_shape: Sequence[int],
    window: Sequence[int],
    shift: Sequence[int],
    *,
    axis_order: str = "xyz",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Group voxels by window; see `perception3d.ops.window_partition`."""
    size = coords.new_tensor(list(window), dtype=torch.int64)
    shifted = coords[:, 1:].long() + coords.new_tensor(list(shift), dtype=torch.int64)
    place = torch.div(shifted, size, rounding_mode="floor")  # (N, 3) window position z, y, x
    cell_in_window = (shifted - place * size).int()

    if axis_order == "xyz":
        place = place.flip(1)
    rows = torch.cat([coords[:, :1].long(), place], dim=1)
    _, window_of_voxel, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    order = torch.argsort(window_of_voxel, stable=True)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return window_of_voxel, order, offsets, cell_in_window
