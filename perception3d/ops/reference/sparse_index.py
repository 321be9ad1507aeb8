"""Plain torch twin of `perception3d.ops.sparse_index`."""

from collections.abc import Sequence

import torch
from torch import Tensor


def sparse_index(
    coords: Tensor,
    batch_size: int,
    spatial_shape: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the outputs and all pairs; see `perception3d.ops.sparse_index`."""
    cells, step = coords[:, 1:].long(), coords.new_tensor(stride).long()
    pad, size = coords.new_tensor(padding).long(), coords.new_tensor(kernel).long()
    shape = (coords.new_tensor(spatial_shape).long() + 2 * pad - size) // step + 1
    taps = torch.cartesian_prod(
        *(torch.arange(count, device=coords.device) for count in kernel)
    ).view(-1, 3)
    ahead = cells[:, None] + pad - taps  # (N, K, 3): output cell times stride
    out = torch.div(ahead, step, rounding_mode="floor")
    exists = ((ahead % step == 0) & (out >= 0) & (out < shape)).all(2)
    row, tap = exists.nonzero(as_tuple=True)
    cell = torch.cat([coords[row, :1].long(), out[row, tap]], 1)
    found, place = torch.unique(cell, dim=0, return_inverse=True)
    inputs = coords.new_full((found.shape[0], taps.shape[0]), -1)
    outputs = coords.new_full((coords.shape[0], taps.shape[0]), -1)
    inputs[place, tap] = row.int()
    outputs[row, tap] = place.int()
    return found.int(), inputs, outputs
