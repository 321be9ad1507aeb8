"""Set attention as others would write it in torch: over padded slots."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception3d.layers import SetAttention
from perception3d.layers.pooling import AttentionPooling


@dataclass(frozen=True)
class Slots:
    """The padded tables of one sort order of a SetPartition.

    Attributes:
        voxel_of_slot: (sets, S) int64.
        repeated: (sets, S) bool, slots that are no key.
        slot_of_voxel: (N,) int64.
    """

    voxel_of_slot: Tensor
    repeated: Tensor
    slot_of_voxel: Tensor


def padded_sdpa(query: Tensor, key: Tensor, value: Tensor, slots: Slots) -> Tensor:
    """Gather (N, H, D) rows into slots, attend by torch's fused kernel, gather back."""

    def gathered(rows: Tensor) -> Tensor:
        return rows[slots.voxel_of_slot].transpose(1, 2)

    attended = F.scaled_dot_product_attention(
        gathered(query),
        gathered(key),
        gathered(value),
        attn_mask=~slots.repeated[:, None, None, :],
    )
    return attended.transpose(1, 2).flatten(0, 1)[slots.slot_of_voxel]


def projected_then_padded(
    layer: SetAttention, features: Tensor, position: Tensor, slots: Slots
) -> Tensor:
    """Project per voxel with F.linear, attend over padded slots."""
    count, channels = features.shape
    split = 2 * channels
    weight, bias = layer.qkv.weight, layer.qkv.bias
    query_key = F.linear(features + position, weight[:split], bias[:split])
    value = F.linear(features, weight[split:], bias[split:])
    query, key = query_key.view(count, 2, layer.heads, -1).unbind(1)
    mixed = padded_sdpa(query, key, value.view(count, layer.heads, -1), slots)
    return F.linear(mixed.flatten(1), layer.out.weight, layer.out.bias)


def official_module(layer: SetAttention | AttentionPooling) -> nn.MultiheadAttention:
    """Return the module of the official network, with the same parameters."""
    module = nn.MultiheadAttention(layer.qkv.in_features, layer.heads, batch_first=True)
    module = module.to(layer.qkv.weight)
    module.register_parameter("in_proj_weight", layer.qkv.get_parameter("weight"))
    module.register_parameter("in_proj_bias", layer.qkv.get_parameter("bias"))
    module.out_proj.register_parameter("weight", layer.out.get_parameter("weight"))
    module.out_proj.register_parameter("bias", layer.out.get_parameter("bias"))
    return module


def official_style(
    module: nn.MultiheadAttention,
    features: Tensor,
    position: Tensor,
    rows: Tensor,
    repeated: Tensor,
    *,
    fused: bool = False,
) -> Tensor:
    """Attend and project per slot, then write back the first copy of every voxel, found by unique.

    Source: Haiyang-W/DSVT: pcdet/models/backbones_3d/dsvt.py, SetAttention.forward.

    Args:
        module: of `official_module`.
        features: (N, C).
        position: (N, C).
        rows: (sets, S) int64, voxel of each slot.
        repeated: (sets, S) bool, slots that are no key.
        fused: do not ask for the attention weights, which the published code leaves unused: torch
            then takes its fused kernel.
    """
    value = features[rows]
    query = value + position[rows]
    mixed, _ = module(query, query, value, key_padding_mask=repeated, need_weights=not fused)
    flat = rows.flatten()
    voxels, voxel_of_copy = torch.unique(flat, return_inverse=True)
    copies = torch.arange(flat.shape[0], device=flat.device)
    first = copies.new_empty(voxels.shape[0])
    # Backwards, so that the first copy is written last.
    first.scatter_(0, voxel_of_copy.flip(0), copies.flip(0))
    result: Tensor = mixed.flatten(0, 1)[first]
    return result
