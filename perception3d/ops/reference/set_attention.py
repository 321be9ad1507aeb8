"""The formula of `perception3d.ops.set_attention`, written out."""

import torch
from torch import Tensor


def set_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    voxel_of_slot: Tensor,
    repeated: Tensor,
    slot_of_voxel: Tensor,
) -> Tensor:
    """Let every voxel attend to its set; see `perception3d.ops.set_attention`."""
    set_of_voxel = torch.div(slot_of_voxel, voxel_of_slot.shape[1], rounding_mode="floor")
    members = voxel_of_slot[set_of_voxel]  # (N, S) voxels in the set of each voxel
    scores = torch.einsum("nhd,nshd->nhs", query, key[members]) / query.shape[-1] ** 0.5
    scores = scores.masked_fill(repeated[set_of_voxel][:, None, :], -torch.inf)
    return torch.einsum("nhs,nshd->nhd", scores.softmax(dim=-1), value[members])
