"""Linear maps of rows, on CPUs by the faster of torch's two matrix products."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}
# Multiplications from which on oneDNN wins although it rearranges the weight in every call
# (measured on one thread of a Zen 5, 11 to 384 columns).
_FEWEST_PRODUCTS = 2**20


def linear(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    steady: bool = False,
) -> Tensor:
    """Compute activation(rows @ weight.T + bias), as F.linear does up to rounding.

    float32 rows on the CPU go to oneDNN, which packs both factors and is about twice as fast as
    the BLAS behind F.linear; without a gradient it applies the activation as well.  Everything else
    (other dtypes, autocast, other devices, few rows, graphs being compiled or exported) goes to
    F.linear.

    Args:
        rows: (N, C) float.
        weight: (K, C).
        bias: (K,) or None.
        activation: None, "gelu" (exact erf form) or "relu".
        steady: a row's result does not depend on how many other rows there are, bit for bit:
            oneDNN for any number of float32 rows on the CPU.  (BLAS has loops of its own for few
            rows, and oneDNN for one.)

    Returns:
        (N, K).
    """
    if steady and rows.shape[0] == 1:
        return linear(rows.expand(2, -1), weight, bias, activation, steady=True)[:1]
    if not _onednn_pays(rows, weight, 0 if steady else _FEWEST_PRODUCTS):
        result = F.linear(rows, weight, bias)
    elif torch.is_grad_enabled() and _any_requires_grad(rows, weight, bias):
        result = _OneDNNLinear.apply(rows, weight, bias)  # type: ignore[no-untyped-call]  # torch's
    else:
        return _product(rows, weight, bias, activation)
    return result if activation is None else ACTIVATIONS[activation](result)


class RowLinear(nn.Linear):
    """nn.Linear for (N, C) rows through `linear`.

    Args:
        in_features, out_features, bias: as nn.Linear.
        steady: see `linear`.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, steady: bool = False
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.steady = steady

    def forward(self, rows: Tensor) -> Tensor:
        """Map (N, C) to (N, K)."""
        return linear(rows, self.weight, self.bias, steady=self.steady)


def _onednn_pays(rows: Tensor, weight: Tensor, fewest: int) -> bool:
    return (
        not torch.compiler.is_compiling()
        and not torch._C._get_tracing_state()
        and rows.device.type == "cpu"
        and weight.device.type == "cpu"
        and rows.dtype == weight.dtype == torch.float32
        and rows.ndim == 2
        and rows.shape[0] * weight.numel() >= fewest
        and not torch.is_autocast_enabled("cpu")
        and has_onednn()
        and bool(torch.backends.mkldnn.enabled)
    )


@cache
def has_onednn() -> bool:
    """Say whether torch was built with oneDNN."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]  # torch's


def _any_requires_grad(*tensors: Tensor | None) -> bool:
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _product(
    rows: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None
) -> Tensor:
    # The operator that torch.compile emits for linear layers on CPUs.
    rows, weight = without_gaps(rows), without_gaps(weight)
    result: Tensor = torch.ops.mkldnn._linear_pointwise(
        rows, weight, bias, activation or "none", [], "none" if activation == "gelu" else ""
    )
    return result


def without_gaps(matrix: Tensor) -> Tensor:
    """Return a matrix, copied if neither its rows nor its columns lie side by side in memory.

    oneDNN is hundreds of times slower on such matrices, of which the gradient of a sum is one: all
    its numbers are the same.
    """
    strides = matrix.stride()
    return matrix if 1 in strides and 0 not in strides else matrix.contiguous()


class _OneDNNLinear(torch.autograd.Function):
    """rows @ weight.T + bias; its gradients are such products again, also of higher order."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ANN401  # torch's
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # noqa: ANN401
        rows, weight = ctx.saved_tensors
        (grad,) = grads
        wanted = ctx.needs_input_grad
        grad_rows = linear(grad, weight.t()) if wanted[0] else None
        grad_weight = _weight_gradient(grad, rows) if wanted[1] else None
        return grad_rows, grad_weight, grad.sum(0) if wanted[2] else None


def _weight_gradient(grad: Tensor, rows: Tensor) -> Tensor:
    """Compute grad.T @ rows; oneDNN is faster with the wider matrix as its weight."""
    if rows.shape[1] < grad.shape[1]:
        return linear(rows.t(), grad.t()).t().contiguous()
    return linear(grad.t(), rows.t())
