"""Sub-manifold convolution over a table of neighbours."""

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


def subm_conv(
    features: Tensor, neighbours: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Convolve the features of voxels, at occupied cells only.

    out[i] = bias + sum over taps k of features[neighbours[i, k]] @ weight[k], taps without a voxel
    left out.  16-bit numbers are multiplied and summed in float32 and rounded once.  Gradients
    of features and weight are the same on any number of threads.

    Args:
        features: (N, Cin) float, one row per voxel.
        neighbours: (N, K) int32, a table of `subm_index` of the same voxels: the gradient relies
            on its symmetry.
        weight: (K, Cin, Cout), or (Cout, kz, ky, kx, Cin) as spconv 2 stores it, dtype of the
            features; read as it lies in memory.
        bias: (Cout,) of the same dtype, or None.

    Returns:
        (N, Cout) like `features`.

    Raises:
        TypeError, ValueError: shape, dtype or device.
        RuntimeError: neighbours outside -1..N-1 (CPU); a second derivative.
    """
    owner = "subm_conv"
    check_tensor(owner, "features", features, ("N", "Cin"), FLOATS)
    dtype = (features.dtype,)
    check_tensor(owner, "neighbours", neighbours, (features.shape[0], "K"), (torch.int32,))
    if isinstance(weight, Tensor) and weight.ndim == 5:
        check_tensor(owner, "weight", weight, ("Cout", "kz", "ky", "kx", "Cin"), dtype)
        weight = weight.flatten(1, 3).permute(1, 2, 0)
    shape = (neighbours.shape[1], features.shape[1], "Cout")
    check_tensor(owner, "weight", weight, shape, dtype)
    check_same_device(owner, features=features, neighbours=neighbours, weight=weight)
    if bias is not None:
        check_tensor(owner, "bias", bias, (weight.shape[2],), dtype)
        check_same_device(owner, features=features, bias=bias)
        bias = bias.contiguous()
    result: Tensor = native.subm_conv(features.contiguous(), neighbours.contiguous(), weight, bias)
    return result


@fake_kernel("subm_conv")
def _fake(features: Tensor, neighbours: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return features.new_empty((features.shape[0], weight.shape[2]))


@fake_kernel("subm_conv_backward")
def _fake_backward(
    grad: Tensor,
    features: Tensor,
    neighbours: Tensor,
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
    features, neighbours, weight, _ = inputs
    ctx.save_for_backward(features, neighbours, weight)


def _differentiate(
    ctx: Any,  # noqa: ANN401  # torch's
    grad: Tensor,
) -> tuple[Tensor | None, None, Tensor | None, Tensor | None]:
    features, neighbours, weight = ctx.saved_tensors
    needs_features, _, needs_weight, needs_bias = ctx.needs_input_grad
    grad_features, grad_weight = None, None
    if needs_features or needs_weight:
        grad_features, grad_weight = native.subm_conv_backward(
            grad.contiguous(), features, neighbours, weight, needs_features, needs_weight
        )
    return (
        grad_features if needs_features else None,
        None,
        grad_weight if needs_weight else None,
        grad.sum(0) if needs_bias else None,
    )


register_gradient("subm_conv", _differentiate, _save)
refuse_second_derivative("subm_conv")
