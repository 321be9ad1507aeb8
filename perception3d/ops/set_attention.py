"""Softmax attention inside DSVT's sets."""

import torch
from torch import Tensor
from torch.nn import functional as F

from perception3d.checks import FLOATS, check_same_device, check_tensor


def set_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    voxel_of_slot: Tensor,
    repeated: Tensor,
    slot_of_voxel: Tensor,
) -> Tensor:
    """Let every voxel attend to the voxels of its set.

    Softmax of query . key / sqrt(D) over the true members of the set: repeated slots are no keys.
    Projections stay with the caller, per voxel, not per slot.

    Args:
        query: (N, H, D) float, one row per voxel.
        key: (N, H, D).
        value: (N, H, D).
        voxel_of_slot: (sets, S) int64 voxel row in each slot, of one sort order.
        repeated: (sets, S) bool, true where a slot repeats the voxel of the slot before it.
        slot_of_voxel: (N,) int64 first slot (set * S + slot) of each voxel.

    Returns:
        (N, H, D) like `value`.

    Raises:
        TypeError, ValueError: shape, dtype or device.
    """
    check_tensor("set_attention", "query", query, ("N", "H", "D"), FLOATS)
    check_tensor("set_attention", "key", key, tuple(query.shape), (query.dtype,))
    check_tensor("set_attention", "value", value, tuple(query.shape), (query.dtype,))
    check_tensor("set_attention", "voxel_of_slot", voxel_of_slot, ("sets", "S"), (torch.int64,))
    table = tuple(voxel_of_slot.shape)
    check_tensor("set_attention", "repeated", repeated, table, (torch.bool,))
    rows = (query.shape[0],)
    check_tensor("set_attention", "slot_of_voxel", slot_of_voxel, rows, (torch.int64,))
    check_same_device(
        "set_attention",
        query=query,
        key=key,
        value=value,
        voxel_of_slot=voxel_of_slot,
        repeated=repeated,
        slot_of_voxel=slot_of_voxel,
    )
    attended = F.scaled_dot_product_attention(
        _slots(query, voxel_of_slot),
        _slots(key, voxel_of_slot),
        _slots(value, voxel_of_slot),
        attn_mask=~repeated[:, None, None, :],
    )
    # Written back by a gather: every voxel has one first slot, so nothing is scattered.
    return attended.transpose(1, 2).flatten(0, 1)[slot_of_voxel]


def _slots(rows: Tensor, voxel_of_slot: Tensor) -> Tensor:
    """Gather (N, H, D) rows into (sets, H, S, D)."""
    return rows[voxel_of_slot].transpose(1, 2)
