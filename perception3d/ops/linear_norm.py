"""Linear maps of rows, residual sums and layer norms in one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from perception3d.checks import check_same_device, check_tensor
from perception3d.ops.library import fake_kernel, load_library, refuse_gradient
from perception3d.ops.linear import (
    accepted_dtypes,
    check_map,
    is_ours,
    linear,
    needs_gradient,
    without_gaps,
)

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
    check_map("linear_norm", rows, weight, bias)
    for stage in stages:
        _check_stage(rows, weight, stage)
    plain = [tensor for stage in stages for tensor in stage]
    if not is_ours(rows) or needs_gradient(rows, weight, bias, *plain):
        mapped = linear(rows, weight, bias)
        for kept, norm_weight, norm_bias in stages:
            mapped = F.layer_norm(mapped + kept, norm_weight.shape, norm_weight, norm_bias, epsilon)
        return mapped
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


def _check_stage(rows: Tensor, weight: Tensor, stage: AddNorm) -> None:
    if torch._C._get_tracing_state():
        return
    owner, (kept, norm_weight, norm_bias) = "linear_norm", stage
    dtypes, width = accepted_dtypes(rows), weight.shape[0]
    check_tensor(owner, "kept", kept, (rows.shape[0], width), dtypes)
    check_tensor(owner, "weight of a norm", norm_weight, (width,), dtypes)
    check_tensor(owner, "bias of a norm", norm_bias, (width,), dtypes)
    check_same_device(owner, rows=rows, kept=kept, weight=norm_weight, bias=norm_bias)


@fake_kernel("linear_norm")
def _fake(rows: Tensor, weight: Tensor, *settings: object) -> Tensor:
    return rows.new_empty((rows.shape[0], weight.shape[0]))


refuse_gradient("linear_norm", "linear_norm: the gradient goes through linear and layer_norm")
