"""Plain torch twin of `perception3d.ops.set_transformer`."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from perception3d.ops.reference.set_attention import set_attention
from perception3d.ops.set_transformer import TransformerParameters

Pair = tuple[Tensor, Tensor]


def set_transformer(
    rows: Tensor,
    position: Tensor,
    index: Tensor | None,
    order: Tensor,
    offsets: Tensor,
    layer: TransformerParameters,
    after: Sequence[tuple[Tensor, Pair]] = (),
) -> Tensor:
    """Attend, project, add, normalise, feed forward; see `perception3d.ops.set_transformer`."""
    (qkv, qkv_bias), (out, out_bias), (first, first_bias), (second, second_bias) = layer.maps
    placed = rows + (position if index is None else position[index])
    query, key, _ = (placed @ qkv.t() + qkv_bias).chunk(3, 1)
    value = (rows @ qkv.t() + qkv_bias).chunk(3, 1)[2]
    by_head = (rows.shape[0], layer.heads, rows.shape[1] // layer.heads)
    mixed = set_attention(
        query.reshape(by_head), key.reshape(by_head), value.reshape(by_head), order, offsets
    )
    attended = _norm(mixed.flatten(1) @ out.t() + out_bias + rows, layer.norms[0], layer.epsilon)
    hidden = attended @ first.t() + first_bias
    hidden = F.gelu(hidden) if layer.activation == "gelu" else hidden.clamp(min=0)
    result = _norm(hidden @ second.t() + second_bias + attended, layer.norms[1], layer.epsilon)
    for kept, norm in after:
        result = _norm(result + kept, norm, layer.epsilon)
    return result


def _norm(rows: Tensor, norm: Pair, epsilon: float) -> Tensor:
    centred = rows - rows.mean(1, keepdim=True)
    variance = centred.square().mean(1, keepdim=True)
    weight, bias = norm
    return centred * torch.rsqrt(variance + epsilon) * weight + bias
