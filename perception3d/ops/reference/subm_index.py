"""Plain torch twin of `perception3d.ops.subm_index`."""

from collections.abc import Sequence

import torch
from torch import Tensor


def subm_index(
    coords: Tensor, batch_size: int, spatial_shape: Sequence[int], kernel: Sequence[int]
) -> Tensor:
    """Find the voxel at every tap; see `perception3d.ops.subm_index`."""
    size = torch.tensor(spatial_shape, device=coords.device)
    frame, cells = coords[:, 0].long(), coords[:, 1:].long()
    keys, order = torch.sort(_key(frame, cells, size))
    columns = []
    for z in range(kernel[0]):
        for y in range(kernel[1]):
            for x in range(kernel[2]):
                step = cells.new_tensor([z, y, x]) - cells.new_tensor(kernel) // 2
                there = cells + step
                inside = ((there >= 0) & (there < size)).all(dim=1)
                wanted = _key(frame, there, size)
                place = torch.searchsorted(keys, wanted).clamp(max=max(keys.shape[0] - 1, 0))
                found = inside & (keys[place] == wanted)
                columns.append(torch.where(found, order[place], -1))
    return torch.stack(columns, dim=1).int()


def _key(frame: Tensor, cells: Tensor, size: Tensor) -> Tensor:
    z, y, x = cells.unbind(1)
    return ((frame * size[0] + z) * size[1] + y) * size[2] + x
