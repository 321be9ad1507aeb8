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
    check_tensor("set_attention", "query", query, ("N", "H", "D"), FLOATS)
    check_tensor("set_attention", "key", key, tuple(query.shape), (query.dtype,))
    check_tensor("set_attention", "value", value, tuple(query.shape), (query.dtype,))
    check_tensor("set_attention", "order", order, (query.shape[0],), (torch.int64,))
    check_tensor("set_attention", "offsets", offsets, ("sets + 1",), (torch.int64,))
    check_same_device(
        "set_attention", query=query, key=key, value=value, order=order, offsets=offsets
    )
    if offsets.shape[0] < 1:
        raise ValueError("set_attention: offsets must be (sets + 1,) int64, got (0,)")
    rows = [_with_dense_heads(tensor) for tensor in (query, key, value)]
    keep_log_sum = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in rows)
    result: Tensor
    result, _ = native.set_attention(*rows, order.contiguous(), offsets.contiguous(), keep_log_sum)
    return result


def _with_dense_heads(rows: Tensor) -> Tensor:
    """Copy only where the numbers of a head do not lie next to each other."""
    return rows if rows.shape[2] <= 1 or rows.stride(2) == 1 else rows.contiguous()


@fake_kernel("set_attention")
def _fake(
    query: Tensor, key: Tensor, value: Tensor, order: Tensor, offsets: Tensor, keep_log_sum: bool
) -> tuple[Tensor, Tensor]:
    rows, heads, width = query.shape
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    log_sum = query.new_empty((rows if keep_log_sum else 0, heads), dtype=dtype)
    return query.new_empty((rows, heads, width)), log_sum


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
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:  # noqa: ANN401  # torch's
    query, key, value, order, offsets, _ = inputs
    result, log_sum = output
    ctx.mark_non_differentiable(log_sum)
    ctx.save_for_backward(query, key, value, result, log_sum, order, offsets)


def _differentiate(
    ctx: Any,  # noqa: ANN401
    grad: Tensor,
    _: Tensor,
) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
    gradients = native.set_attention_backward(_with_dense_heads(grad), *ctx.saved_tensors)
    return (*gradients, None, None, None)


register_gradient("set_attention", _differentiate, _save)
refuse_second_derivative("set_attention")
