"""Selective state space recurrence (Mamba) over sequences laid end to end, with gradients."""

from typing import Any, Literal, overload

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
CHUNK = 64  # places between two kept states; kScanChunk of csrc/common/scan_layout.h


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    offsets: Tensor,
    *,
    skip: Tensor | None = ...,
    gate: Tensor | None = ...,
    delta_bias: Tensor | None = ...,
    delta_softplus: bool = ...,
    order: Tensor | None = ...,
    reverse: bool = ...,
    return_state: Literal[False] = ...,
) -> Tensor: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    offsets: Tensor,
    *,
    skip: Tensor | None = ...,
    gate: Tensor | None = ...,
    delta_bias: Tensor | None = ...,
    delta_softplus: bool = ...,
    order: Tensor | None = ...,
    reverse: bool = ...,
    return_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def selective_scan(  # noqa: PLR0913  # the recurrence has that many inputs
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    offsets: Tensor,
    *,
    skip: Tensor | None = None,
    gate: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    order: Tensor | None = None,
    reverse: bool = False,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan every sequence from a state of zeros.

    Along a sequence, for channel d and state n:

        delta_t = softplus(delta_t + delta_bias)       (softplus and bias as asked for)
        h_t[n]  = exp(delta_t A[n]) h_(t-1)[n] + delta_t u_t B_t[n]
        y_t     = (sum_n C_t[n] h_t[n] + skip u_t) * silu(gate_t)

    States are float32, or float64 for float64 rows.  No (L, D, N) tensor is made: for the gradient
    the states before every 64th place are kept, and the others computed again.  Results and
    gradients do not depend on the number of threads; those of a row do not depend on the other
    sequences.

    Source: Mamba, Gu and Dao 2023, algorithm 2, with B discretised by Euler's rule as in the code
    of the paper.

    Args:
        u, delta: (L, D) float, one row per token.  All row tensors have one dtype, and may be
            column ranges of a wider tensor: they are read where they lie.
        A: (D, N) float32, or float64 for float64 rows.
        B, C: (L, N) as u.
        offsets: (S + 1,) int64 ascending from 0 to L; sequence s holds the places
            offsets[s] .. offsets[s + 1] - 1, none if they are equal.
        skip: (D,) like A.
        gate: (L, D) as u.
        delta_bias: (D,) like A.
        delta_softplus: pass delta, with its bias, through softplus.
        order: (L,) int64, place p is row order[p]; every row once.  Default: place p is row p.
        reverse: walk every sequence from its last place to its first.
        return_state: return the state after the last step too; no gradient flows through it.

    Returns:
        y (L, D) like u, row by row (not in the order of places); with return_state also the states
        (S, D, N) like A, 0 for an empty sequence.

    Raises:
        TypeError, ValueError: shape, dtype or device.
        RuntimeError: offsets that do not ascend from 0 to L, an order that is no permutation (CPU);
            a second derivative.
    """
    owner = "selective_scan"
    check_tensor(owner, "u", u, ("L", "D"), FLOATS)
    length, channels = u.shape
    number = (torch.float64,) if u.dtype == torch.float64 else (torch.float32,)
    check_tensor(owner, "A", A, (channels, "N"), number)
    check_tensor(owner, "delta", delta, (length, channels), (u.dtype,))
    check_tensor(owner, "B", B, (length, A.shape[1]), (u.dtype,))
    check_tensor(owner, "C", C, (length, A.shape[1]), (u.dtype,))
    check_tensor(owner, "offsets", offsets, ("S + 1",), (torch.int64,))
    if offsets.shape[0] < 1:
        raise ValueError(f"{owner}: offsets must be (S + 1,) int64 with S >= 0, got (0,)")
    given = {"skip": skip, "gate": gate, "delta_bias": delta_bias, "order": order}
    shapes = {"skip": (channels,), "gate": (length, channels), "delta_bias": (channels,)}
    dtypes = {"skip": number, "gate": (u.dtype,), "delta_bias": number, "order": (torch.int64,)}
    others = {name: tensor for name, tensor in given.items() if tensor is not None}
    for name, tensor in others.items():
        check_tensor(owner, name, tensor, shapes.get(name, (length,)), dtypes[name])
    check_same_device(owner, u=u, delta=delta, A=A, B=B, C=C, offsets=offsets, **others)
    differentiable = (u, delta, A, B, C, skip, gate, delta_bias)
    keep = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in differentiable
    )
    y, _, state = native.selective_scan(
        _rows(u),
        _rows(delta),
        A.contiguous(),
        _rows(B),
        _rows(C),
        offsets.contiguous(),
        None if skip is None else skip.contiguous(),
        None if gate is None else _rows(gate),
        None if delta_bias is None else delta_bias.contiguous(),
        delta_softplus,
        None if order is None else order.contiguous(),
        reverse,
        keep,
        return_state,
    )
    return (y, state) if return_state else y


def _rows(tensor: Tensor) -> Tensor:
    """Return the tensor if its rows have no gaps inside, else a contiguous copy."""
    return tensor if tensor.stride(1) == 1 else tensor.contiguous()


@fake_kernel("selective_scan")
def _fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401  # the operator's
    u, _, A, _, _, offsets, *_, keep_checkpoints, keep_state = arguments
    channels, states = A.shape
    chunks = (u.shape[0] + CHUNK - 1) // CHUNK if keep_checkpoints else 0
    sequences = offsets.shape[0] - 1 if keep_state else 0
    return (
        u.new_empty((u.shape[0], channels)),
        A.new_empty((chunks, states, channels)),
        A.new_empty((sequences, channels, states)),
    )


@fake_kernel("selective_scan_backward")
def _fake_backward(*arguments: Any) -> tuple[Tensor, ...]:  # noqa: ANN401  # the operator's
    _, u, _, A, _, _, _, skip, gate, delta_bias, *_ = arguments
    length, (channels, states) = u.shape[0], A.shape
    return (
        u.new_empty((length, channels)),
        u.new_empty((length, channels)),
        A.new_empty((channels, states)),
        u.new_empty((length, states)),
        u.new_empty((length, states)),
        A.new_empty((0 if skip is None else channels,)),
        u.new_empty((0 if gate is None else length, channels)),
        A.new_empty((0 if delta_bias is None else channels,)),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401
    *tensors, ctx.softplus, order, ctx.reverse, _, _ = inputs
    _, checkpoints, state = output
    ctx.mark_non_differentiable(checkpoints, state)
    ctx.save_for_backward(*tensors, order, checkpoints)


def _differentiate(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    *tensors, order, checkpoints = ctx.saved_tensors
    rows = native.selective_scan_backward(
        _rows(grad), *tensors, ctx.softplus, order, ctx.reverse, checkpoints
    )
    u, delta, A, B, C, skip, gate, delta_bias = rows
    absent = [
        None if tensor is None else grad
        for tensor, grad in zip(tensors[6:], (skip, gate, delta_bias), strict=True)
    ]
    return u, delta, A, B, C, None, *absent, None, None, None, None, None


register_gradient("selective_scan", _differentiate, _save)
refuse_second_derivative("selective_scan")
