"""Plain torch twin of `perception3d.ops.set_partition`."""

import torch
from torch import Tensor


def set_partition(
    cell_in_window: Tensor, order: Tensor, offsets: Tensor, set_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cut windows into sets; see `perception3d.ops.set_partition`."""
    counts = offsets.diff()
    sets_of_window = torch.div(counts + set_size - 1, set_size, rounding_mode="floor")
    windows = torch.arange(counts.shape[0], device=order.device)
    window_of_set = windows.repeat_interleave(sets_of_window)
    first_set = sets_of_window.cumsum(0) - sets_of_window
    set_in_window = torch.arange(window_of_set.shape[0], device=order.device)
    set_in_window = set_in_window - first_set[window_of_set]

    slot = torch.arange(set_size, device=order.device)
    numerator = (set_in_window[:, None] * set_size + slot) * counts[window_of_set][:, None]
    slots_of_window = (sets_of_window * set_size)[window_of_set][:, None]
    position = torch.div(numerator, slots_of_window, rounding_mode="floor")
    position = position + offsets[window_of_set][:, None]  # (sets, S), in window-sorted voxels

    repeated = torch.zeros_like(position, dtype=torch.bool)
    repeated[:, 1:] = position[:, 1:] == position[:, :-1]
    window_of_row = torch.empty_like(order)
    window_of_row[order] = windows.repeat_interleave(counts)
    z, y, x = cell_in_window.unbind(1)
    voxel_of_slot = torch.stack(
        [
            _sort_rows(order, keys)[position]
            for keys in ((z, x, y, window_of_row), (z, y, x, window_of_row))
        ]
    )
    first = (~repeated).flatten().nonzero().squeeze(1)  # one slot per voxel
    slot_of_voxel = torch.empty((2, order.shape[0]), dtype=torch.int64, device=order.device)
    slot_of_voxel.scatter_(1, voxel_of_slot.flatten(1)[:, first], first.expand(2, -1))
    set_order = voxel_of_slot.flatten(1)[:, first]
    members = (~repeated).sum(1)
    set_offsets = torch.cat([members.new_zeros(1), members.cumsum(0)])
    repeated = repeated.expand(2, -1, -1).contiguous()
    return voxel_of_slot, repeated, slot_of_voxel, set_order, set_offsets


def _sort_rows(order: Tensor, keys: tuple[Tensor, ...]) -> Tensor:
    """Sort rows by the last key, ties by the key before it, and so on down to their order."""
    rows = order
    for key in keys:
        rows = rows[torch.argsort(key[rows], stable=True)]
    return rows
