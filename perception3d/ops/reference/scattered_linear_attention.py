"""Plain torch twin of `perception3d.ops.scattered_linear_attention`."""

import torch
from torch import Tensor


def scattered_linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    *,
    order: Tensor | None = None,
    epsilon: float = 1e-6,
) -> Tensor:
    """Linear attention inside windows; see `perception3d.ops.scattered_linear_attention`."""
    if order is not None:
        query, key, value = query[order], key[order], value[order]
    lengths = offsets.diff().tolist()
    windows = zip(*(torch.split(x, lengths) for x in (query, key, value)), strict=True)
    # An empty part gives the result its shape where there is no window at all.
    parts = [value[:0]]
    parts += [_attend(q.relu(), k.relu(), v, epsilon) for q, k, v in windows]
    result = torch.cat(parts)
    return result if order is None else result[order.argsort()]


def _attend(query: Tensor, key: Tensor, value: Tensor, epsilon: float) -> Tensor:
    """Attend inside one window: (n, H, D), (n, H, D), (n, H, E) -> (n, H, E)."""
    key_values = torch.einsum("nhd,nhe->hde", key, value)
    total = torch.einsum("nhd,hd->nh", query, key.sum(0)) + epsilon
    return torch.einsum("nhd,hde->nhe", query, key_values) / total[..., None]


def scattered_linear_attention_qkv(
    qkv: Tensor, offsets: Tensor, *, order: Tensor | None = None, epsilon: float = 1e-6
) -> Tensor:
    """Linear attention of one projection; see `perception3d.ops.scattered_linear_attention_qkv`."""
    query, key, value = qkv.unbind(1)
    return scattered_linear_attention(query, key, value, offsets, order=order, epsilon=epsilon)
