"""The formula of `perception3d.ops.set_attention`, written out."""

import torch
from torch import Tensor


def set_attention(
    query: Tensor, key: Tensor, value: Tensor, order: Tensor, offsets: Tensor
) -> Tensor:
    """Let every row attend to its set; see `perception3d.ops.set_attention`."""
    attended = [query.new_zeros((0, *query.shape[1:]))]
    for rows in order.tensor_split(offsets[1:-1].tolist()):
        scores = torch.einsum("ihd,jhd->hij", query[rows], key[rows]) / query.shape[-1] ** 0.5
        attended.append(torch.einsum("hij,jhd->ihd", scores.softmax(dim=-1), value[rows]))
    place = torch.empty_like(order)
    place[order] = torch.arange(order.shape[0], device=order.device)
    return torch.cat(attended)[place]


def set_attention_qk(query_key: Tensor, value: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
    """Attention of one projection; see `perception3d.ops.set_attention_qk`."""
    query, key = query_key.unbind(1)
    return set_attention(query, key, value, order, offsets)
