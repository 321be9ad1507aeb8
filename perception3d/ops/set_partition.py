"""Cuts windows into DSVT's sets of equal slot count."""

import torch
from torch import Tensor

from perception3d.checks import check_same_device, check_tensor
from perception3d.ops.library import fake_kernel, load_library

native = load_library()


def set_partition(
    cell_in_window: Tensor, order: Tensor, offsets: Tensor, set_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cut every window into sets of `set_size` slots, in two sort orders.

    A window of n voxels gets q = ceil(n / S) sets; slot t of set j holds its sorted voxel number
    floor((j * S + t) * n / (q * S)).  So every voxel lies in exactly one set of each order, in
    adjacent slots (Haiyang-W/DSVT: pcdet/models/backbones_3d/dsvt_input_layer.py).

    Args:
        cell_in_window: (N, 3) int32, cell inside the window, order z, y, x.
        order: (N,) int64 permutation of the voxels that groups them by window.
        offsets: (W + 1,) int64, window w holds the voxels order[offsets[w]:offsets[w + 1]].
        set_size: slots per set, S >= 1.

    Returns:
        voxel_of_slot: (2, sets, S) int64; dimension 0: y-major (y, x, z), x-major (x, y, z).
        repeated: (2, sets, S) bool, true where a slot repeats the voxel of the slot before it.
        slot_of_voxel: (2, N) int64, first slot (set * S + slot) that holds each voxel.
        set_order: (2, N) int64, the true members of the sets, set by set.
        set_offsets: (sets + 1,) int64, in sort order o set s holds the voxels
            set_order[o, set_offsets[s]:set_offsets[s + 1]].

    Raises:
        TypeError, ValueError: shape, dtype, device, or a set size below 1.
        RuntimeError: order is no permutation, or offsets do not fit it (CPU).
    """
    check_tensor("set_partition", "cell_in_window", cell_in_window, ("N", 3), (torch.int32,))
    rows = cell_in_window.shape[0]
    check_tensor("set_partition", "order", order, (rows,), (torch.int64,))
    check_tensor("set_partition", "offsets", offsets, ("W + 1",), (torch.int64,))
    check_same_device("set_partition", cell_in_window=cell_in_window, order=order, offsets=offsets)
    if offsets.shape[0] < 1:
        raise ValueError("set_partition: offsets must be (W + 1,) int64 with W >= 0, got (0,)")
    if set_size < 1:
        raise ValueError(f"set_partition: set_size must be >= 1, got {set_size}")
    tables: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = native.set_partition(
        cell_in_window.contiguous(), order.contiguous(), offsets.contiguous(), set_size
    )
    return tables


@fake_kernel("set_partition")
def _fake(
    cell_in_window: Tensor, order: Tensor, offsets: Tensor, set_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    sets = torch.library.get_ctx().new_dynamic_size()
    return (
        order.new_empty((2, sets, set_size)),
        order.new_empty((2, sets, set_size), dtype=torch.bool),
        order.new_empty((2, cell_in_window.shape[0])),
        order.new_empty((2, cell_in_window.shape[0])),
        order.new_empty((sets + 1,)),
    )
