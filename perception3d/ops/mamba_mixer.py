"""Mamba mixer of rows that form sequences: norm, projections, convolution, scan and gate."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perception3d.checks import FLOATS, check_same_device, check_tensor
from perception3d.ops.causal_conv1d import causal_conv1d
from perception3d.ops.library import fake_kernel, load_library, refuse_gradient
from perception3d.ops.linear import (
    accepted_dtypes,
    is_ours,
    linear,
    needs_gradient,
    without_gaps,
)
from perception3d.ops.selective_scan import selective_scan

native = load_library()


@dataclass(frozen=True)
class MambaParameters:
    """What a mixer has learned, for C channels, D inner channels, N states and step rank R.

    Attributes:
        norm: (C,) weight of the RMS norm.
        in_proj: (2 D, C), inner rows before gates.
        conv_weight, conv_bias: (D, K) and (D,), at least float32.
        x_proj: (R + 2 N, D): low rank of the steps, B, C.
        step_proj: (D, R).
        step_bias: (D,), at least float32.
        A: (D, N) decay rates, negative, at least float32.
        skip: (D,), at least float32.
        out_proj: (C, D).
        epsilon: added to the mean square.
    """

    norm: Tensor
    in_proj: Tensor
    conv_weight: Tensor
    conv_bias: Tensor
    x_proj: Tensor
    step_proj: Tensor
    step_bias: Tensor
    A: Tensor
    skip: Tensor
    out_proj: Tensor
    epsilon: float = 1e-5

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, in the order of the native operator."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


@dataclass(frozen=True)
class NormParameters:
    """Weight and bias (C,) of a layer norm, and what it adds to variances."""

    weight: Tensor
    bias: Tensor
    epsilon: float = 1e-5


def mamba_mixer(
    rows: Tensor,
    offsets: Tensor,
    mixer: MambaParameters,
    *,
    added: Tensor | None = None,
    order: Tensor | None = None,
    reverse: bool = False,
    after: NormParameters | None = None,
) -> Tensor:
    """Mix rows along their sequences.

        inner, gate = in_proj(RMSNorm(rows + added))
        u           = silu(causal convolution of inner)
        low, B, C   = x_proj(u)
        y           = selective scan of u with softplus(step_proj(low) + step_bias), A, B, C and
                      skip, times silu(gate)
        result      = LayerNorm(out_proj(y))                             (the norm only if `after`)

    On the CPU without gradients, in float32 and float64, a few rows at a time go through all of it
    while they lie in the cache, and no (L, D) tensor is made; threads hand the states of the scan
    on from block to block.  Everything else goes through the single operators.

    Source: Mamba, Gu and Dao 2023, section 3.4.

    Args:
        rows: (L, C) float, in any order.
        offsets: (S + 1,) int64 ascending from 0 to L; sequence s holds the places
            offsets[s] .. offsets[s + 1] - 1.
        mixer: parameters in the dtype of the rows, or float32 where they say so.
        added: (L, C), such as position embeddings.
        order: (L,) int64, place p is row order[p]; every row once.  Default: place p is row p.
        reverse: walk every sequence from its last place to its first.
        after: norm of the results.

    Returns:
        (L, C), row by row.

    Raises:
        TypeError, ValueError: shape, dtype or device.
        RuntimeError: offsets that do not ascend from 0 to L, an order that is no permutation (CPU).
    """
    _check(rows, offsets, mixer, added, order, after)
    further = () if after is None else (after.weight, after.bias)
    tensors = mixer.tensors().values()
    equal = all(t.dtype == rows.dtype for t in (*tensors, *further, added) if t is not None)
    if is_ours(rows) and equal and not needs_gradient(rows, added, *tensors, *further):
        result: Tensor = native.mamba_mixer(
            without_gaps(rows),
            None if added is None else without_gaps(added),
            offsets.contiguous(),
            None if order is None else order.contiguous(),
            reverse,
            mixer.norm.contiguous(),
            mixer.epsilon,
            mixer.in_proj,
            mixer.conv_weight.contiguous(),
            mixer.conv_bias.contiguous(),
            mixer.x_proj,
            mixer.step_proj,
            mixer.step_bias.contiguous(),
            mixer.A.contiguous(),
            mixer.skip.contiguous(),
            mixer.out_proj,
            None if after is None else after.weight.contiguous(),
            None if after is None else after.bias.contiguous(),
            0.0 if after is None else after.epsilon,
        )
        return result
    return _by_single_operators(rows, offsets, mixer, added, order, reverse, after)


def _by_single_operators(
    rows: Tensor,
    offsets: Tensor,
    mixer: MambaParameters,
    added: Tensor | None,
    order: Tensor | None,
    reverse: bool,
    after: NormParameters | None,
) -> Tensor:
    rank, states = mixer.step_proj.shape[1], mixer.A.shape[1]
    rows = rows if added is None else rows + added
    rows = F.rms_norm(rows, mixer.norm.shape, mixer.norm, mixer.epsilon)
    inner, gate = linear(rows, mixer.in_proj).chunk(2, dim=1)
    inner = causal_conv1d(
        inner,
        mixer.conv_weight,
        mixer.conv_bias,
        offsets,
        activation="silu",
        order=order,
        reverse=reverse,
    )
    projected = linear(inner, mixer.x_proj)
    low_rank, into, out_of = torch.split(projected, [rank, states, states], dim=1)
    mixed = selective_scan(
        inner,
        linear(low_rank, mixer.step_proj),
        mixer.A,
        into,
        out_of,
        offsets,
        skip=mixer.skip,
        gate=gate,
        delta_bias=mixer.step_bias,
        delta_softplus=True,
        order=order,
        reverse=reverse,
    )
    result = linear(mixed, mixer.out_proj)
    if after is None:
        return result
    return F.layer_norm(result, after.weight.shape, after.weight, after.bias, after.epsilon)


def _check(
    rows: Tensor,
    offsets: Tensor,
    mixer: MambaParameters,
    added: Tensor | None,
    order: Tensor | None,
    after: NormParameters | None,
) -> None:
    owner = "mamba_mixer"
    check_tensor(owner, "rows", rows, ("L", "C"), FLOATS)
    if torch._C._get_tracing_state():  # sizes are no plain numbers there
        return
    dtypes, (length, width) = accepted_dtypes(rows), rows.shape
    wide = (torch.float64,) if rows.dtype == torch.float64 else (torch.float32,)
    check_tensor(owner, "A", mixer.A, ("D", "N"), wide)
    inner, states = mixer.A.shape
    check_tensor(owner, "step_proj", mixer.step_proj, (inner, "R"), dtypes)
    rank = mixer.step_proj.shape[1]
    check_tensor(owner, "norm", mixer.norm, (width,), dtypes)
    check_tensor(owner, "in_proj", mixer.in_proj, (2 * inner, width), dtypes)
    check_tensor(owner, "conv_weight", mixer.conv_weight, (inner, "K"), wide)
    check_tensor(owner, "conv_bias", mixer.conv_bias, (inner,), wide)
    check_tensor(owner, "x_proj", mixer.x_proj, (rank + 2 * states, inner), dtypes)
    check_tensor(owner, "step_bias", mixer.step_bias, (inner,), wide)
    check_tensor(owner, "skip", mixer.skip, (inner,), wide)
    check_tensor(owner, "out_proj", mixer.out_proj, (width, inner), dtypes)
    check_same_device(owner, rows=rows, offsets=offsets, **mixer.tensors())
    check_tensor(owner, "offsets", offsets, ("S + 1",), (torch.int64,))
    if offsets.shape[0] < 1:
        raise ValueError(f"{owner}: offsets must be (S + 1,) int64 with S >= 0, got (0,)")
    if added is not None:
        check_tensor(owner, "added", added, (length, width), FLOATS)
        check_same_device(owner, rows=rows, added=added)
    if order is not None:
        check_tensor(owner, "order", order, (length,), (torch.int64,))
        check_same_device(owner, rows=rows, order=order)
    if after is not None:
        check_tensor(owner, "weight of after", after.weight, (width,), dtypes)
        check_tensor(owner, "bias of after", after.bias, (width,), dtypes)
        check_same_device(owner, rows=rows, weight=after.weight, bias=after.bias)


@fake_kernel("mamba_mixer")
def _fake(rows: Tensor, *settings: object) -> Tensor:
    return torch.empty_like(rows, memory_format=torch.contiguous_format)


refuse_gradient("mamba_mixer", "mamba_mixer: the gradient goes through the single operators")
