"""Sum, mean and maximum of rows that share a segment, with gradients."""

from typing import Any

import torch
from torch import Tensor

from perception3d.checks import FLOATS, check_same_device, check_tensor
from perception3d.ops.library import fake_kernel, load_library, register_gradient

native = load_library()


def segment_reduce(values: Tensor, order: Tensor, offsets: Tensor, reduce: str = "sum") -> Tensor:
    """Reduce the rows of every segment; deterministic on any number of threads.

    float16 and bfloat16 are stored only: sums are float64 on the CPU, float32 on CUDA, where the
    order of additions is decided by the segment's length alone.

    Args:
        values: (R, C) float.
        order: (K,) int64 rows of `values`, each at most once.
        offsets: (N + 1,) int64, segment n holds the rows order[offsets[n]:offsets[n + 1]].
        reduce: "sum", "mean" or "max".  The gradient of "max" goes to the first maximal row in
            the order of the segment.

    Returns:
        (N, C) like `values`; 0 for an empty segment.

    Raises:
        TypeError, ValueError: shape, dtype, device, or an unknown reduction.
        RuntimeError: offsets that do not ascend from 0 to K, rows outside 0..R-1 (CPU).
    """
    check_tensor("segment_reduce", "values", values, ("R", "C"), FLOATS)
    check_tensor("segment_reduce", "order", order, ("K",), (torch.int64,))
    check_tensor("segment_reduce", "offsets", offsets, ("N + 1",), (torch.int64,))
    check_same_device("segment_reduce", values=values, order=order, offsets=offsets)
    if offsets.shape[0] < 1:
        raise ValueError("segment_reduce: offsets must be (N + 1,) int64 with N >= 0, got (0,)")
    if reduce not in ("sum", "mean", "max"):
        raise ValueError(f"segment_reduce: reduce must be 'sum', 'mean' or 'max', got {reduce!r}")
    values, order, offsets = values.contiguous(), order.contiguous(), offsets.contiguous()
    result: Tensor
    if reduce == "max":
        keep_rows = values.requires_grad and torch.is_grad_enabled()
        result, _ = native.segment_max(values, order, offsets, keep_rows)
    else:
        result = native.segment_sum(values, order, offsets, reduce == "mean")
    return result


@fake_kernel("segment_sum")
def _fake_sum(values: Tensor, order: Tensor, offsets: Tensor, mean: bool) -> Tensor:
    return values.new_empty((offsets.shape[0] - 1, values.shape[1]))


@fake_kernel("segment_sum_backward")
def _fake_sum_backward(
    grad: Tensor, order: Tensor, offsets: Tensor, num_rows: int, mean: bool
) -> Tensor:
    return grad.new_empty((num_rows, grad.shape[1]))


@fake_kernel("segment_max")
def _fake_max(
    values: Tensor, order: Tensor, offsets: Tensor, keep_rows: bool
) -> tuple[Tensor, Tensor]:
    segments, columns = offsets.shape[0] - 1, values.shape[1]
    rows = values.new_empty((segments if keep_rows else 0, columns), dtype=torch.int32)
    return values.new_empty((segments, columns)), rows


@fake_kernel("segment_max_backward")
def _fake_max_backward(grad: Tensor, row_of_maximum: Tensor, num_rows: int) -> Tensor:
    return grad.new_empty((num_rows, grad.shape[1]))


def _save_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401  # torch's
    values, order, offsets, ctx.mean = inputs
    ctx.num_rows = values.shape[0]
    ctx.save_for_backward(order, offsets)


def _differentiate_sum(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
    order, offsets = ctx.saved_tensors
    rows = native.segment_sum_backward(grad.contiguous(), order, offsets, ctx.num_rows, ctx.mean)
    return rows, None, None, None


def _save_sum_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
    _, order, offsets, _, ctx.mean = inputs
    ctx.save_for_backward(order, offsets)


def _differentiate_sum_backward(
    ctx: Any,  # noqa: ANN401
    grad: Tensor,
) -> tuple[Tensor, None, None, None, None]:
    order, offsets = ctx.saved_tensors
    segments = native.segment_sum(grad.contiguous(), order, offsets, ctx.mean)
    return segments, None, None, None, None


def _save_max(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:  # noqa: ANN401
    ctx.num_rows = inputs[0].shape[0]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _differentiate_max(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
    (row_of_maximum,) = ctx.saved_tensors
    rows = native.segment_max_backward(grad.contiguous(), row_of_maximum, ctx.num_rows)
    return rows, None, None, None


def _save_max_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401
    ctx.save_for_backward(inputs[1])


def _differentiate_max_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
    (row_of_maximum,) = ctx.saved_tensors
    padded = torch.cat([grad, grad.new_zeros((1, grad.shape[1]))])  # row -1 of empty segments
    return padded.gather(0, row_of_maximum.long() % padded.shape[0]), None, None


register_gradient("segment_sum", _differentiate_sum, _save_sum)
register_gradient("segment_sum_backward", _differentiate_sum_backward, _save_sum_backward)
register_gradient("segment_max", _differentiate_max, _save_max)
register_gradient("segment_max_backward", _differentiate_max_backward, _save_max_backward)
