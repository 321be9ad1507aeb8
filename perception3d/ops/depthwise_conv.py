"""Depth-wise sub-manifold convolution: several kernel shapes on groups of channels in one pass."""

from collections.abc import Sequence
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


def depthwise_conv(
    features: Tensor, kernels: Sequence[tuple[Tensor, Tensor, int]], *, residual: bool = False
) -> Tensor:
    """Convolve groups of channels, each with its own kernel shape; pass the other channels on.

    For a kernel (neighbours, weight, first) and its channels c = first .. first + C_k - 1,
    out[i, c] = sum over taps k of weight[k, c - first] * features[neighbours[i, k], c], taps
    without a voxel left out; a channel of no kernel is copied.  No bias, no normalisation by the
    number of taps.  16-bit numbers are summed in float32 and rounded once.  Gradients are the same
    on any number of threads.

    Source: ScatterFormer (ECCV 2024), cross-window interaction.

    Args:
        features: (N, C) float, one row per voxel.
        kernels: one or more of
            neighbours (N, K) int32, a table of `subm_index` of the same voxels: the gradient
            relies on its symmetry;
            weight (K, C_k) or (kz, ky, kx, C_k), dtype of the features;
            first channel of the C_k that it works on.  No channel belongs to two kernels.
        residual: add the features: out + features (twice the features where they are copied).

    Returns:
        (N, C) like `features`.

    Raises:
        TypeError, ValueError: shape, dtype, device, channels that do not exist or overlap.
        RuntimeError: neighbours outside -1..N-1 (CPU); a second derivative.
    """
    check_tensor("depthwise_conv", "features", features, ("N", "C"), FLOATS)
    if len(kernels) == 0:
        raise ValueError("depthwise_conv: kernels must not be empty")
    weights = [_check_kernel(features, number, *kernel) for number, kernel in enumerate(kernels)]
    _check_channels(features, weights, [first for _, _, first in kernels])
    result: Tensor = native.depthwise_conv(
        features.contiguous(),
        [neighbours.contiguous() for neighbours, _, _ in kernels],
        weights,
        [first for _, _, first in kernels],
        residual,
    )
    return result


def _check_kernel(
    features: Tensor, number: int, neighbours: Tensor, weight: Tensor, first: int
) -> Tensor:
    """Check one kernel and return its weight as contiguous (K, C_k)."""
    owner, table, factor = "depthwise_conv", f"neighbours {number}", f"weight {number}"
    check_tensor(owner, table, neighbours, (features.shape[0], "K"), (torch.int32,))
    if isinstance(weight, Tensor) and weight.ndim == 4:
        check_tensor(owner, factor, weight, ("kz", "ky", "kx", "C_k"), (features.dtype,))
        weight = weight.flatten(0, 2)
    check_tensor(owner, factor, weight, (neighbours.shape[1], "C_k"), (features.dtype,))
    check_same_device(owner, features=features, **{table: neighbours, factor: weight})
    return weight.contiguous()


def _check_channels(features: Tensor, weights: list[Tensor], first: list[int]) -> None:
    """Raise ValueError unless all channels exist and belong to one kernel at most."""
    ends = [begin + weight.shape[1] for begin, weight in zip(first, weights, strict=True)]
    free = 0
    for begin, end in sorted(zip(first, ends, strict=True)):
        if begin < free or end > features.shape[1]:
            ranges = ", ".join(f"{a}..{b - 1}" for a, b in zip(first, ends, strict=True))
            raise ValueError(
                f"depthwise_conv: channels of kernels must be among 0..{features.shape[1] - 1} "
                f"and not overlap, got {ranges}"
            )
        free = end


@fake_kernel("depthwise_conv")
def _fake(
    features: Tensor,
    neighbours: list[Tensor],
    weights: list[Tensor],
    first_channels: list[int],
    residual: bool,
) -> Tensor:
    return torch.empty_like(features)


@fake_kernel("depthwise_conv_backward")
def _fake_backward(
    grad: Tensor,
    features: Tensor,
    neighbours: list[Tensor],
    weights: list[Tensor],
    first_channels: list[int],
    residual: bool,
    needs_features: bool,
    needs_weights: bool,
) -> tuple[Tensor, list[Tensor]]:
    rows, columns = grad.shape
    return grad.new_empty((rows if needs_features else 0, columns)), [
        weight.new_empty((weight.shape[0] if needs_weights else 0, weight.shape[1]))
        for weight in weights
    ]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401  # torch's
    features, neighbours, weights, ctx.first_channels, ctx.residual = inputs
    ctx.save_for_backward(features, *neighbours, *weights)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[object, ...]:  # noqa: ANN401  # torch's
    features, *tables = ctx.saved_tensors
    kernels = len(tables) // 2
    needs_features, _, needs_weight, _, _ = ctx.needs_input_grad
    needs_weights = any(needs_weight)
    grad_features, grad_weights = native.depthwise_conv_backward(
        grad.contiguous(),
        features,
        tables[:kernels],
        tables[kernels:],
        ctx.first_channels,
        ctx.residual,
        needs_features,
        needs_weights,
    )
    return (
        grad_features if needs_features else None,
        [None] * kernels,
        grad_weights if needs_weights else [None] * kernels,
        None,
        None,
    )


register_gradient("depthwise_conv", _differentiate, _save)
refuse_second_derivative("depthwise_conv")
