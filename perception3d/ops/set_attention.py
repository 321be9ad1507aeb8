"""Softmax attention inside sets of voxels, with gradients."""

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
from perception3d.ops.linear import needs_gradient, without_gaps

native = load_library()


def set_attention(
    query: Tensor, key: Tensor, value: Tensor, order: Tensor, offsets: Tensor
) -> Tensor:
    """Let every voxel attend to the voxels of its set; deterministic on any number of threads.

    Softmax of query . key / sqrt(D) over the members of the set.  Sets may have any size from one
    voxel on; (order, offsets) are those of a SetPartition's sort order, or of Windows.
    Projections stay with the caller, per voxel; strided views of one projection are read in
    place.  float16 and bfloat16 are computed in float32 and rounded once; on CUDA, where D is 8,
    16, .. 64, tensor cores take the weights rounded too.

    Args:
        query: (N, H, D) float, one row per voxel.
        key: (N, H, D).
        value: (N, H, D).
        order: (N,) int64, a permutation of the voxels that lists them set by set.
        offsets: (sets + 1,) int64, set s holds the voxels order[offsets[s]:offsets[s + 1]].

    Returns:
        (N, H, D) like `query`.

    Raises:
        TypeError, ValueError: shape, dtype or device.
        RuntimeError: order is no permutation, or offsets do not ascend from 0 to N (CPU); D > 256
            (CUDA); a second derivative.
    """
    owner = "set_attention"
    check_tensor(owner, "query", query, ("N", "H", "D"), FLOATS)
    check_tensor(owner, "key", key, tuple(query.shape), (query.dtype,))
    check_tensor(owner, "value", value, tuple(query.shape), (query.dtype,))
    _check_sets(owner, order, offsets, query=query, key=key, value=value)
    rows = [without_gaps(tensor) for tensor in (query, key, value)]
    result: Tensor
    result, _ = native.set_attention(
        *rows, order.contiguous(), offsets.contiguous(), needs_gradient(*rows)
    )
    return result


def set_attention_qk(query_key: Tensor, value: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
    """Compute `set_attention` of one projection to query and key; its gradient is written once.

    Args:
        query_key: (N, 2, H, D) float, query and key of every voxel side by side.
        value: (N, H, D).
        order, offsets: as for `set_attention`.

    Returns:
        (N, H, D) like `value`.

    Raises:
        TypeError, ValueError, RuntimeError: as for `set_attention`.
    """
    owner = "set_attention_qk"
    check_tensor(owner, "query_key", query_key, ("N", 2, "H", "D"), FLOATS)
    rows, _, heads, width = query_key.shape
    check_tensor(owner, "value", value, (rows, heads, width), (query_key.dtype,))
    _check_sets(owner, order, offsets, query_key=query_key, value=value)
    parts = [without_gaps(tensor) for tensor in (query_key, value)]
    result: Tensor
    result, _ = native.set_attention_qk(
        *parts, order.contiguous(), offsets.contiguous(), needs_gradient(*parts)
    )
    return result


def _check_sets(owner: str, order: Tensor, offsets: Tensor, **rows: Tensor) -> None:
    voxels = next(iter(rows.values())).shape[0]
    check_tensor(owner, "order", order, (voxels,), (torch.int64,))
    check_tensor(owner, "offsets", offsets, ("sets + 1",), (torch.int64,))
    check_same_device(owner, **rows, order=order, offsets=offsets)
    if offsets.shape[0] < 1:
        raise ValueError(f"{owner}: offsets must be (sets + 1,) int64, got (0,)")


@fake_kernel("set_attention")
def _fake(
    query: Tensor, key: Tensor, value: Tensor, order: Tensor, offsets: Tensor, keep_log_sum: bool
) -> tuple[Tensor, Tensor]:
    rows, heads, _ = value.shape
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    log_sum = value.new_empty((rows if keep_log_sum else 0, heads), dtype=dtype)
    return value.new_empty(value.shape), log_sum


@fake_kernel("set_attention_qk")
def _fake_qk(
    query_key: Tensor, value: Tensor, order: Tensor, offsets: Tensor, keep_log_sum: bool
) -> tuple[Tensor, Tensor]:
    return _fake(query_key, query_key, value, order, offsets, keep_log_sum)


@fake_kernel("set_attention_backward")
def _fake_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    result: Tensor,
    log_sum: Tensor,
    order: Tensor,
    offsets: Tensor,
) -> Tensor:
    rows, heads, width = query.shape
    return query.new_empty((rows, 3 * heads * width))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:  # noqa: ANN401  # torch's
    *rows, order, offsets, _ = inputs
    result, log_sum = output
    ctx.mark_non_differentiable(log_sum)
    ctx.save_for_backward(*rows, result, log_sum, order, offsets)


def _gradients(grad: Tensor, *saved: Tensor) -> Tensor:
    """Return the gradients of query, key and value side by side, (N, 3, H, D)."""
    gradients: Tensor = native.set_attention_backward(without_gaps(grad), *saved)
    rows, heads, width = grad.shape
    return gradients.view(rows, 3, heads, width)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    return (*_gradients(grad, *ctx.saved_tensors).unbind(1), None, None, None)


def _differentiate_qk(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    query_key, *saved = ctx.saved_tensors
    gradients = _gradients(grad, *query_key.unbind(1), *saved)
    return gradients[:, :2], gradients[:, 2], None, None, None


register_gradient("set_attention", _differentiate, _save)
register_gradient("set_attention_qk", _differentiate_qk, _save)
refuse_second_derivative("set_attention")
