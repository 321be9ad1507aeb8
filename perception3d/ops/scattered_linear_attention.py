"""Linear attention inside windows of any length (ScatterFormer, ECCV 2024, section 3.2)."""

import math
from typing import Any

import torch
from torch import Tensor

from perception3d.checks import FLOATS, check_same_device, check_tensor
from perception3d.ops.library import (
    fake_kernel,
    load_library,
    refuse_second_derivative,
    register_gradient,
)
from perception3d.ops.linear import without_gaps

native = load_library()

Grads = tuple[Tensor | None, ...]


def scattered_linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    *,
    order: Tensor | None = None,
    epsilon: float = 1e-6,
) -> Tensor:
    """Let every row attend to the rows of its window, in time linear in their number.

    Per window and head, relu(q) (sum relu(k) v^T) / (relu(q) . sum relu(k) + epsilon): 0 where the
    product with the keys is 0.  There is no scale and no position term.

    The three inputs may be strided views of one projection; they are read in place, as long as the
    last axis has no gaps.  Their gradients come as views of one (N, H * (2 D + E)) tensor.  Sums
    are kept in float32 (float64 for float64).  Results do not depend on the number of threads.
    Only the inputs are kept for the backward pass, which sums the windows again.

    Args:
        query: (N, H, D) float, before the relu, whose slope at 0 is taken as 0.
        key: (N, H, D), like `query`.
        value: (N, H, E), like `query`.
        offsets: (W + 1,) int64, window w holds the rows order[offsets[w]:offsets[w + 1]]; windows
            may be empty.
        order: (N,) int64 permutation of the rows, None where rows are sorted by window.
        epsilon: added to the denominator, > 0.

    Returns:
        (N, H, E) like `value`, rows in the order of the inputs.

    Raises:
        TypeError, ValueError: shape, dtype, device, or an epsilon that is not positive.
        RuntimeError: offsets that do not ascend from 0 to N, an order that is no permutation
            (CPU); a second differentiation.
    """
    owner = "scattered_linear_attention"
    check_tensor(owner, "query", query, ("N", "H", "D"), FLOATS)
    check_tensor(owner, "key", key, tuple(query.shape), (query.dtype,))
    check_tensor(owner, "value", value, (query.shape[0], query.shape[1], "E"), (query.dtype,))
    _check_windows(owner, "query", query, offsets, order, epsilon)
    check_same_device(owner, query=query, key=key, value=value)
    result: Tensor = native.scattered_linear_attention(
        without_gaps(query),
        without_gaps(key),
        without_gaps(value),
        offsets.contiguous(),
        None if order is None else order.contiguous(),
        epsilon,
    )
    return result


def scattered_linear_attention_qkv(
    qkv: Tensor,
    offsets: Tensor,
    *,
    order: Tensor | None = None,
    epsilon: float = 1e-6,
) -> Tensor:
    """Compute `scattered_linear_attention` of one projection; its gradient is written once.

    Args:
        qkv: (N, 3, H, D) float, query, key and value of every row side by side.
        offsets, order, epsilon: as for `scattered_linear_attention`.

    Returns:
        (N, H, D) like `qkv`.

    Raises:
        TypeError, ValueError, RuntimeError: as for `scattered_linear_attention`.
    """
    owner = "scattered_linear_attention_qkv"
    check_tensor(owner, "qkv", qkv, ("N", 3, "H", "D"), FLOATS)
    _check_windows(owner, "qkv", qkv, offsets, order, epsilon)
    result: Tensor = native.scattered_linear_attention_qkv(
        without_gaps(qkv),
        offsets.contiguous(),
        None if order is None else order.contiguous(),
        epsilon,
    )
    return result


def _check_windows(
    owner: str, name: str, rows: Tensor, offsets: Tensor, order: Tensor | None, epsilon: float
) -> None:
    check_tensor(owner, "offsets", offsets, ("W + 1",), (torch.int64,))
    if offsets.shape[0] < 1:
        raise ValueError(f"{owner}: offsets must be (W + 1,) int64 with W >= 0, got (0,)")
    check_same_device(owner, **{name: rows, "offsets": offsets})
    if order is not None:
        check_tensor(owner, "order", order, (rows.shape[0],), (torch.int64,))
        check_same_device(owner, **{name: rows, "order": order})
    if not 0.0 < epsilon < math.inf:
        raise ValueError(f"{owner}: epsilon must be > 0 and finite, got {epsilon}")


@fake_kernel("scattered_linear_attention")
def _fake(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    order: Tensor | None,
    epsilon: float,
) -> Tensor:
    return value.new_empty(value.shape)


@fake_kernel("scattered_linear_attention_qkv")
def _fake_qkv(qkv: Tensor, offsets: Tensor, order: Tensor | None, epsilon: float) -> Tensor:
    return qkv.new_empty((qkv.shape[0], qkv.shape[2], qkv.shape[3]))


@fake_kernel("scattered_linear_attention_backward")
def _fake_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    order: Tensor | None,
    epsilon: float,
) -> Tensor:
    columns = query.shape[1] * (2 * query.shape[2] + value.shape[2])
    return grad.new_empty((query.shape[0], columns))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401  # torch's
    *tensors, ctx.epsilon = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> Grads:  # noqa: ANN401
    query, key, value, offsets, order = ctx.saved_tensors
    grads = native.scattered_linear_attention_backward(
        without_gaps(grad), query, key, value, offsets, order, ctx.epsilon
    )
    rows, heads, width = query.shape
    widths = (width, width, value.shape[2])
    parts = grads.split([heads * columns for columns in widths], 1)
    query_grad, key_grad, value_grad = (
        part.view(rows, heads, columns) for part, columns in zip(parts, widths, strict=True)
    )
    return query_grad, key_grad, value_grad, None, None, None


def _differentiate_qkv(ctx: Any, grad: Tensor) -> Grads:  # noqa: ANN401
    qkv, offsets, order = ctx.saved_tensors
    grads = native.scattered_linear_attention_backward(
        without_gaps(grad), *qkv.unbind(1), offsets, order, ctx.epsilon
    )
    return grads.view(qkv.shape), None, None, None


register_gradient("scattered_linear_attention", _differentiate, _save)
register_gradient("scattered_linear_attention_qkv", _differentiate_qkv, _save)
refuse_second_derivative("scattered_linear_attention")
