"""A layer of a set transformer: attention inside sets, feed-forward network, norms behind sums."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perception3d.checks import check_same_device, check_tensor
from perception3d.ops.library import fake_kernel, load_library, refuse_gradient
from perception3d.ops.linear import (
    ACTIVATIONS,
    accepted_dtypes,
    activation_number,
    check_map,
    is_ours,
    linear,
    needs_gradient,
    without_gaps,
)
from perception3d.ops.set_attention import set_attention_qk

native = load_library()

# Weight (Cout, Cin) and bias (Cout,) of a linear map.
Map = tuple[Tensor, Tensor]
# Weight and bias (C,) of a layer norm.
Norm = tuple[Tensor, Tensor]

# Rows of a set that stay in the cache through the whole layer.
_LONGEST_SET = 256


@dataclass(frozen=True)
class TransformerParameters:
    """What a layer has learned, and its settings, for C channels.

    Attributes:
        heads: attention heads, a divisor of C.
        maps: qkv (C to 3 C: queries, keys, values), out (C to C), first (C to the hidden width) and
            second (back).
        norms: of the sums after attention and after the feed-forward network.
        activation: of the feed-forward network, "gelu" (exact erf form) or "relu".
        epsilon: added to the variances.
    """

    heads: int
    maps: tuple[Map, Map, Map, Map]
    norms: tuple[Norm, Norm]
    activation: str = "gelu"
    epsilon: float = 1e-5


def set_transformer(
    rows: Tensor,
    position: Tensor,
    index: Tensor | None,
    order: Tensor,
    offsets: Tensor,
    layer: TransformerParameters,
    after: Sequence[tuple[Tensor, Norm]] = (),
) -> Tensor:
    """Run a whole layer.

    With the maps of the layer:

        attended = LayerNorm(out(attention) + rows)
        result   = LayerNorm(second(activation(first(attended))) + attended)

    and result <- LayerNorm(result + further rows) for every item of `after`.  Attention is that of
    `attend_sets`.

    On the CPU without gradients, in float32 and float64, with positions from a table and short
    sets, a few sets at a time go through all of it while they lie in the cache.  Everything else
    goes through the single operators.

    Args:
        rows: (N, C) float.
        position: (N, C) embedding of every row; with an index (M, C), of every place.
        index: (N,) int64, the place of every row; None: every row has its own.
        order: (N,) int64, rows set by set.
        offsets: (sets + 1,) int64, set s holds the rows order[offsets[s]:offsets[s + 1]].
        layer: parameters of the dtype of the rows.
        after: (N, C) rows and the norm of their sum with the result, one after the other.

    Returns:
        (N, C).

    Raises:
        TypeError, ValueError: shape, dtype, device, heads or activation.
        RuntimeError: on the CPU an index outside of the table, an order that is no permutation,
            offsets that do not ascend from 0 to N.
    """
    _check(rows, position, index, order, offsets, layer, after)
    norms = [*layer.norms, *(norm for _, norm in after)]
    kept_rows = [kept for kept, _ in after]
    plain = [*kept_rows, *(tensor for pair in (*layer.maps, *norms) for tensor in pair)]
    if (
        index is not None
        and is_ours(rows)
        and not needs_gradient(rows, position, *plain)
        and _longest(offsets) <= _LONGEST_SET
    ):
        result: Tensor = native.set_transformer(
            without_gaps(rows),
            without_gaps(position),
            index.contiguous(),
            order.contiguous(),
            offsets.contiguous(),
            layer.heads,
            [weight for weight, _ in layer.maps],
            [bias.contiguous() for _, bias in layer.maps],
            activation_number(layer.activation),
            [without_gaps(kept) for kept in kept_rows],
            [weight.contiguous() for weight, _ in norms],
            [bias.contiguous() for _, bias in norms],
            layer.epsilon,
        )
        return result
    qkv, out, first, second = layer.maps
    own = position if index is None else position[index]
    mixed = attend_sets(rows, own, order, offsets, layer.heads, qkv)
    attended = _add_norm(linear(mixed, *out), rows, norms[0], layer.epsilon)
    fed = linear(linear(attended, *first, layer.activation), *second)
    result = _add_norm(fed, attended, norms[1], layer.epsilon)
    for kept, norm in after:
        result = _add_norm(result, kept, norm, layer.epsilon)
    return result


def attend_sets(
    rows: Tensor, position: Tensor, order: Tensor, offsets: Tensor, heads: int, qkv: Map
) -> Tensor:
    """Mix rows inside their sets: multi-head softmax attention without the last linear map.

    The position (N, C) counts for queries and keys only; other arguments as `set_transformer`.
    Queries, keys and values are projected once per row.
    """
    (count, channels), (weight, bias) = rows.shape, qkv
    split, width = 2 * channels, channels // heads
    query_key = linear(rows + position.to(rows.dtype), weight[:split], bias[:split])
    value = linear(rows, weight[split:], bias[split:]).view(count, heads, width)
    query_key = query_key.view(count, 2, heads, width)
    return set_attention_qk(query_key, value, order, offsets).reshape(count, channels)


def _longest(offsets: Tensor) -> int:
    return int(offsets.diff().max()) if offsets.shape[0] > 1 else 0  # no set, no rows


def _add_norm(rows: Tensor, kept: Tensor, norm: Norm, epsilon: float) -> Tensor:
    weight, bias = norm
    return F.layer_norm(rows + kept, weight.shape, weight, bias, epsilon)


def _check(
    rows: Tensor,
    position: Tensor,
    index: Tensor | None,
    order: Tensor,
    offsets: Tensor,
    layer: TransformerParameters,
    after: Sequence[tuple[Tensor, Norm]],
) -> None:
    owner, maps, heads = "set_transformer", layer.maps, layer.heads
    if layer.activation not in ACTIVATIONS:
        raise ValueError(
            f"{owner}: activation must be one of {sorted(ACTIVATIONS)}, got {layer.activation!r}"
        )
    check_map(owner, rows, *maps[0])
    if torch._C._get_tracing_state():  # sizes are no plain numbers there
        return
    dtypes, (count, width) = accepted_dtypes(rows), rows.shape
    if heads < 1 or width % heads:
        raise ValueError(f"{owner}: heads must divide the {width} channels of rows, got {heads}")
    hidden = maps[2][0].shape[0] if maps[2][0].dim() == 2 else "hidden"
    shapes = [(3 * width, width), (width, width), (hidden, width), (width, hidden)]
    for name, shape, (weight, bias) in zip(
        ("qkv", "out", "first", "second"), shapes, maps, strict=True
    ):
        check_tensor(owner, f"weight of {name}", weight, shape, dtypes)
        check_tensor(owner, f"bias of {name}", bias, shape[:1], dtypes)
        check_same_device(owner, rows=rows, weight=weight, bias=bias)
    for weight, bias in (*layer.norms, *(norm for _, norm in after)):
        check_tensor(owner, "weight of a norm", weight, (width,), dtypes)
        check_tensor(owner, "bias of a norm", bias, (width,), dtypes)
        check_same_device(owner, rows=rows, weight=weight, bias=bias)
    places: int | str = count
    if index is not None:
        check_tensor(owner, "index", index, (count,), (torch.int64,))
        check_same_device(owner, rows=rows, index=index)
        places = "M"
    check_tensor(owner, "position", position, (places, width), dtypes)
    check_tensor(owner, "order", order, (count,), (torch.int64,))
    check_tensor(owner, "offsets", offsets, ("sets + 1",), (torch.int64,))
    if offsets.shape[0] == 0:
        raise ValueError(f"{owner}: offsets must be (sets + 1,) int64, got (0,)")
    check_same_device(owner, rows=rows, position=position, order=order, offsets=offsets)
    for kept, _ in after:
        check_tensor(owner, "kept", kept, (count, width), dtypes)
        check_same_device(owner, rows=rows, kept=kept)


@fake_kernel("set_transformer")
def _fake(rows: Tensor, *settings: object) -> Tensor:
    return torch.empty_like(rows, memory_format=torch.contiguous_format)


refuse_gradient(
    "set_transformer", "set_transformer: the gradient goes through the single operators"
)
