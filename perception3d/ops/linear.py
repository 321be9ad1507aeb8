"""Linear maps of rows."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from perception3d.checks import FLOATS, check_same_device, check_tensor
from perception3d.ops.library import fake_kernel, load_library, register_gradient

native = load_library()

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}
# Activation of csrc/cpu/linear.h.
_NUMBERS = {None: 0, "relu": 1, "gelu": 2}
_OURS = (torch.float32, torch.float64)


def linear(
    rows: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None
) -> Tensor:
    """Compute activation(rows @ weight.T + bias).

    float32 and float64 rows on the CPU go to a kernel of our own, with gradients of any order: its
    results do not depend on the number of threads, and a row's result not on the other rows, bit
    for bit.  Without a gradient it applies the activation as well.  Everything else (16-bit
    numbers, autocast, other devices, graphs being compiled or exported) goes to F.linear.

    Args:
        rows: (N, Cin) float; rows may lie apart in memory.
        weight: (Cout, Cin) of the same dtype.
        bias: (Cout,) of the same dtype, or None.
        activation: None, "gelu" (exact erf form) or "relu".

    Returns:
        (N, Cout).

    Raises:
        TypeError, ValueError: shape, dtype, device or activation.
    """
    check_map("linear", rows, weight, bias)
    if activation not in _NUMBERS:
        raise ValueError(
            f"linear: activation must be None or one of {sorted(ACTIVATIONS)}, got {activation!r}"
        )
    if not is_ours(rows):
        result = F.linear(rows, weight, bias)
    elif activation is None or not needs_gradient(rows, weight, bias):
        return _product(rows, weight, bias, activation)
    else:
        result = _product(rows, weight, bias)
    return result if activation is None else ACTIVATIONS[activation](result)


def activation_number(activation: str | None) -> int:
    """Return the native kernels' number of an activation."""
    return _NUMBERS[activation]


def check_map(owner: str, rows: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raise TypeError or ValueError unless rows, weight and bias fit each other."""
    if torch._C._get_tracing_state():  # sizes are no plain numbers there
        return
    check_tensor(owner, "rows", rows, ("N", "Cin"), FLOATS)
    dtypes = accepted_dtypes(rows)
    check_tensor(owner, "weight", weight, ("Cout", rows.shape[1]), dtypes)
    check_same_device(owner, rows=rows, weight=weight)
    if bias is not None:
        check_tensor(owner, "bias", bias, (weight.shape[0],), dtypes)
        check_same_device(owner, rows=rows, bias=bias)


def accepted_dtypes(rows: Tensor) -> tuple[torch.dtype, ...]:
    """Return the dtypes that may meet these rows: theirs, under autocast all."""
    return FLOATS if _casts(rows) else (rows.dtype,)


def _casts(rows: Tensor) -> bool:
    """Say whether autocast chooses the dtype of a product."""
    return torch.is_autocast_enabled(rows.device.type)


def is_ours(rows: Tensor) -> bool:
    """Say whether the rows go to our kernel."""
    return (
        rows.device.type == "cpu"
        and rows.dtype in _OURS
        and not _casts(rows)
        and not torch.compiler.is_compiling()
        and not torch._C._get_tracing_state()
    )


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Say whether a call with these tensors is to be differentiated."""
    return torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in tensors
    )


def _product(
    rows: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None
) -> Tensor:
    result: Tensor = native.linear(
        without_gaps(rows),
        weight,
        None if bias is None else bias.contiguous(),
        activation_number(activation),
    )
    return result


def without_gaps(rows: Tensor) -> Tensor:
    """Return a tensor with the numbers of its last axis side by side, copied only if need be."""
    return rows if rows.shape[-1] < 2 or rows.stride(-1) == 1 else rows.contiguous()


@fake_kernel("linear")
def _fake(rows: Tensor, weight: Tensor, bias: Tensor | None, activation: int) -> Tensor:
    return rows.new_empty((rows.shape[0], weight.shape[0]))


@fake_kernel("linear_weight_gradient")
def _fake_weight_gradient(grad: Tensor, rows: Tensor, needs_bias: bool) -> tuple[Tensor, Tensor]:
    return (
        grad.new_empty((grad.shape[1], rows.shape[1])),
        grad.new_empty((grad.shape[1] if needs_bias else 0,)),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401  # torch's
    rows, weight, _, activation = inputs
    if activation:
        raise RuntimeError("linear: the gradient goes through activations outside of the operator")
    ctx.save_for_backward(rows, weight)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # torch's
    rows, weight = ctx.saved_tensors
    needs_rows, needs_weight, needs_bias, _ = ctx.needs_input_grad
    grad = without_gaps(grad)
    grad_weight, grad_bias = None, None
    if needs_weight:
        grad_weight, grad_bias = native.linear_weight_gradient(grad, rows, needs_bias)
    elif needs_bias:
        grad_bias = grad.sum(0)
    return (
        _product(grad, weight.t()) if needs_rows else None,
        grad_weight,
        grad_bias if needs_bias else None,
        None,
    )


def _save_for_second(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:  # noqa: ANN401  # torch's
    grad, rows, ctx.needs_bias = inputs
    ctx.save_for_backward(grad, rows)


def _differentiate_twice(
    ctx: Any,  # noqa: ANN401  # torch's
    of_weight: Tensor,
    of_bias: Tensor,
) -> tuple[Tensor | None, ...]:
    grad, rows = ctx.saved_tensors
    of_weight = of_weight.contiguous()
    needs_grad, needs_rows, _ = ctx.needs_input_grad
    return (
        _product(rows, of_weight, of_bias if ctx.needs_bias else None) if needs_grad else None,
        _product(grad, of_weight.t()) if needs_rows else None,
        None,
    )


register_gradient("linear", _differentiate, _save)
register_gradient("linear_weight_gradient", _differentiate_twice, _save_for_second)
