"""Causal depth-wise convolution along sequences laid end to end, with gradients."""

from typing import Any, Literal

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


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    *,
    activation: Literal["silu"] | None = None,
    order: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """Convolve every channel of every sequence with its own taps, which never look ahead.

    Along a sequence y_t = f(bias + sum_j weight[j] x_(t - K + 1 + j)); taps before the first step
    count 0.  Rows are read and written where they lie, whatever order and direction.  Results and
    gradients do not depend on the number of threads; those of a row do not depend on the other
    sequences.

    Source: Mamba, Gu and Dao 2023, section 3.4.

    Args:
        x: (L, D) float, one row per token; may be a column range of a wider tensor.
        weight: (D, K) float32, or float64 for a float64 x; weight[:, K - 1] meets the step itself.
        bias: (D,) like weight, or None.
        offsets: (S + 1,) int64 ascending from 0 to L; sequence s holds the places
            offsets[s] .. offsets[s + 1] - 1.
        activation: "silu", or None.
        order: (L,) int64, place p is row order[p]; every row once.  Default: place p is row p.
        reverse: walk every sequence from its last place to its first.

    Returns:
        (L, D) like x, row by row (not in the order of places).

    Raises:
        TypeError, ValueError: shape, dtype, device, or an unknown activation.
        RuntimeError: offsets that do not ascend from 0 to L, an order that is no permutation (CPU);
            a second derivative.
    """
    owner = "causal_conv1d"
    check_tensor(owner, "x", x, ("L", "D"), FLOATS)
    length, channels = x.shape
    number = (torch.float64,) if x.dtype == torch.float64 else (torch.float32,)
    check_tensor(owner, "weight", weight, (channels, ">=1"), number)
    check_tensor(owner, "offsets", offsets, ("S + 1",), (torch.int64,))
    if offsets.shape[0] < 1:
        raise ValueError(f"{owner}: offsets must be (S + 1,) int64 with S >= 0, got (0,)")
    others = {}
    if bias is not None:
        check_tensor(owner, "bias", bias, (channels,), number)
        others["bias"] = bias = bias.contiguous()
    if order is not None:
        check_tensor(owner, "order", order, (length,), (torch.int64,))
        others["order"] = order = order.contiguous()
    check_same_device(owner, x=x, weight=weight, offsets=offsets, **others)
    if activation not in (None, "silu"):
        raise ValueError(f"{owner}: activation must be None or 'silu', got {activation!r}")
    silu = activation == "silu"
    result: Tensor = native.causal_conv1d(
        _rows(x), weight.contiguous(), bias, offsets.contiguous(), silu, order, reverse
    )
    return result


def _rows(tensor: Tensor) -> Tensor:
    """Return the tensor if its rows have no gaps inside, else a contiguous copy."""
    return tensor if tensor.stride(1) == 1 else tensor.contiguous()


@fake_kernel("causal_conv1d")
def _fake(x: Tensor, *_: Any) -> Tensor:  # noqa: ANN401  # the operator's
    return x.new_empty(x.shape)


@fake_kernel("causal_conv1d_backward")
def _fake_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *_: Any,  # noqa: ANN401  # the operator's
) -> tuple[Tensor, Tensor, Tensor]:
    channels = weight.shape[0]
    grad_bias = weight.new_empty((0 if bias is None else channels,))
    return x.new_empty(x.shape), weight.new_empty(weight.shape), grad_bias


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401  # torch's
    x, weight, bias, offsets, ctx.silu, order, ctx.reverse = inputs
    ctx.save_for_backward(x, weight, bias, offsets, order)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # torch's
    x, weight, bias, offsets, order = ctx.saved_tensors
    grad_x, grad_weight, grad_bias = native.causal_conv1d_backward(
        _rows(grad), x, weight, bias, offsets, ctx.silu, order, ctx.reverse
    )
    return grad_x, grad_weight, None if bias is None else grad_bias, None, None, None, None


register_gradient("causal_conv1d", _differentiate, _save)
refuse_second_derivative("causal_conv1d")
