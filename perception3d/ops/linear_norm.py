"""Linear maps of rows, residual sums and layer norms in one."""

from collections.abc import Sequence
from typing import Any, NoReturn

import torch.nn.functional as F
from torch import Tensor

from perception3d.checks import FLOATS, check_same_device, check_tensor
from perception3d.ops.library import fake_kernel, load_library, register_gradient
from perception3d.ops.linear import is_ours, linear, needs_gradient, without_gaps

native = load_library()

# Rows (N, Cout) that are kept beside the map, weight and bias (Cout,) of the norm of the sum.
AddNorm = tuple[Tensor, Tensor, Tensor]


def linear_norm(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stages: Sequence[AddNorm],
    epsilon: float = 1e-5,
) -> Tensor:
    """Compute x = rows @ weight.T + bias, then x <- LayerNorm(x + kept) for every stage.

    On the CPU without gradients, in float32 and float64, sums and norms happen where the rows of
    the product still lie in the cache.  Everything else goes through `linear` and F.layer_norm.

    Args:
        rows: (N, Cin) float.
        weight: (Cout, Cin) of the same dtype.
        bias: (Cout,) of the same dtype, or None.
        stages: (kept (N, Cout), weight (Cout,), bias (Cout,)) of each sum and norm, in order.
        epsilon: added to the variances.

    Returns:
        (N, Cout).

    Raises:
        TypeError, ValueError: shape, dtype or device.
    """
    plain = [tensor for stage in stages for tensor in stage]
    if not is_ours(rows) or needs_gradient(rows, weight, bias, *plain):
        mapped = linear(rows, weight, bias)
        for kept, norm_weight, norm_bias in stages:
            mapped = F.layer_norm(mapped + kept, norm_weight.shape, norm_weight, norm_bias, epsilon)
        return mapped
    owner, width, dtypes = "linear_norm", weight.shape[0], (rows.dtype,)
    check_tensor(owner, "rows", rows, ("N", "Cin"), FLOATS)
    check_tensor(owner, "weight", weight, ("Cout", rows.shape[1]), dtypes)
    check_same_device(owner, rows=rows, weight=weight)
    if bias is not None:
        check_tensor(owner, "bias", bias, (width,), dtypes)
        check_same_device(owner, rows=rows, bias=bias)
    for kept, norm_weight, norm_bias in stages:
        check_tensor(owner, "kept", kept, (rows.shape[0], width), dtypes)
        check_tensor(owner, "weight of a norm", norm_weight, (width,), dtypes)
        check_tensor(owner, "bias of a norm", norm_bias, (width,), dtypes)
        check_same_device(owner, rows=rows, kept=kept, weight=norm_weight, bias=norm_bias)
    result: Tensor = native.linear_norm(
        without_gaps(rows),
        weight,
        None if bias is None else bias.contiguous(),
        [without_gaps(kept) for kept, _, _ in stages],
        [norm_weight.contiguous() for _, norm_weight, _ in stages],
        [norm_bias.contiguous() for _, _, norm_bias in stages],
        epsilon,
    )
    return result


@fake_kernel("linear_norm")
def _fake(rows: Tensor, weight: Tensor, *settings: object) -> Tensor:
    return rows.new_empty((rows.shape[0], weight.shape[0]))


def _refuse_to_save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> NoReturn:  # noqa: ANN401  # torch's
    raise RuntimeError("linear_norm: the gradient goes through linear and layer_norm")


def _differentiate(ctx: Any, grad: Tensor) -> NoReturn:  # noqa: ANN401  # torch's
    raise RuntimeError("linear_norm: the gradient goes through linear and layer_norm")


register_gradient("linear_norm", _differentiate, _refuse_to_save)
