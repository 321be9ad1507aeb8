"""Sparse convolution between two sets of voxels."""

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


def sparse_conv(
    features: Tensor,
    inputs: Tensor,
    outputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Convolve the features of voxels into those of other voxels.

    out[o] = bias + sum over taps k of features[inputs[o, k]] @ weight[k], taps without a voxel left
    out.  16-bit numbers are multiplied and summed in float32 and rounded once.  Gradients of
    features and weight are the same on any number of threads.  With the two tables swapped it
    is the inverse convolution.

    Args:
        features: (N, Cin) float, one row per voxel.
        inputs, outputs: (M, K) and (N, K) int32, tables of `sparse_index`: the gradient relies on
            their naming the same pairs.
        weight: (K, Cin, Cout), or (Cout, kz, ky, kx, Cin) as spconv 2 stores it, dtype of the
            features; read as it lies in memory.
        bias: (Cout,) of the same dtype, or None.

    Returns:
        (M, Cout) like `features`.

    Raises:
        TypeError, ValueError: shape, dtype or device.
        RuntimeError: tables with rows that do not exist (CPU); a second derivative.
    """
    owner = "sparse_conv"
    check_tensor(owner, "features", features, ("N", "Cin"), FLOATS)
    dtype = (features.dtype,)
    check_tensor(owner, "inputs", inputs, ("M", "K"), (torch.int32,))
    taps = inputs.shape[1]
    check_tensor(owner, "outputs", outputs, (features.shape[0], taps), (torch.int32,))
    if isinstance(weight, Tensor) and weight.ndim == 5:
        check_tensor(owner, "weight", weight, ("Cout", "kz", "ky", "kx", "Cin"), dtype)
        weight = weight.flatten(1, 3).permute(1, 2, 0)
    check_tensor(owner, "weight", weight, (taps, features.shape[1], "Cout"), dtype)
    check_same_device(owner, features=features, inputs=inputs, outputs=outputs, weight=weight)
    if bias is not None:
        check_tensor(owner, "bias", bias, (weight.shape[2],), dtype)
        check_same_device(owner, features=features, bias=bias)
        bias = bias.contiguous()
    result: Tensor = native.sparse_conv(
        features.contiguous(), inputs.contiguous(), outputs.contiguous(), weight, bias
    )
    return result


@fake_kernel("sparse_conv")
def _fake(
    features: Tensor, inputs: Tensor, outputs: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    return features.new_empty((inputs.shape[0], weight.shape[2]))


@fake_kernel("sparse_conv_backward")
def _fake_backward(
    grad: Tensor,
    features: Tensor,
    inputs: Tensor,
    outputs: Tensor,
    weight: Tensor,
    needs_features: bool,
    needs_weight: bool,
) -> tuple[Tensor, Tensor]:
    rows, channels = features.shape
    taps, _, out_channels = weight.shape
    return (
        grad.new_empty((rows if needs_features else 0, channels)),
        grad.new_empty((taps if needs_weight else 0, channels, out_channels)),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401  # torch's
    ctx.save_for_backward(*inputs[:4])


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # torch's
    needs_features, _, _, needs_weight, needs_bias = ctx.needs_input_grad
    grad_features, grad_weight = None, None
    if needs_features or needs_weight:
        grad_features, grad_weight = native.sparse_conv_backward(
            grad.contiguous(), *ctx.saved_tensors, needs_features, needs_weight
        )
    return (
        grad_features if needs_features else None,
        None,
        None,
        grad_weight if needs_weight else None,
        grad.sum(0) if needs_bias else None,
    )


register_gradient("sparse_conv", _differentiate, _save)
refuse_second_derivative("sparse_conv")
