"""Sparse convolution from lists of pairs: gather, multiply, add, one weight after the other."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from perception3d.layers.linear import linear

Pairs = Sequence[tuple[Tensor, Tensor]]


def convolve_pairs(features: Tensor, weight: Tensor, pairs: Pairs, rows: int) -> Tensor:
    """Compute out[j] = sum of features[i] @ weight[:, k].T over the pairs (i, j) of every tap k.

    Each row is summed in the order of taps, and float32 products on the CPU do not depend on how
    many pairs a tap has: a row comes out the same, bit for bit, whatever other rows there are.

    Args:
        features: (N, Cin) float.
        weight: (Cout, K, Cin), dtype of the features.
        pairs: for each tap the rows i of the features and j of the result, int64; no row j twice.
        rows: rows M of the result.

    Returns:
        (M, Cout).
    """
    result: Tensor = _PairProducts.apply(features, weight, pairs, rows)  # type: ignore[no-untyped-call]  # torch's
    return result


class _PairProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, pairs: Pairs, rows: int) -> Tensor:  # noqa: ANN401  # torch's
        ctx.pairs = pairs
        # oneDNN is hundreds of times slower on matrices with gaps between their numbers.
        weight = weight.transpose(0, 1).contiguous()
        ctx.save_for_backward(features, weight)
        out = features.new_zeros(rows, weight.shape[1])
        for tap, (sources, targets) in enumerate(pairs):
            if sources.shape[0]:
                product = linear(features.index_select(0, sources), weight[tap], steady=True)
                out.index_add_(0, targets, product)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # noqa: ANN401
        features, weight = ctx.saved_tensors
        grad_features = torch.zeros_like(features) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for tap, (sources, targets) in enumerate(ctx.pairs):
            if not sources.shape[0]:
                continue
            slope = grad.index_select(0, targets)
            if grad_features is not None:
                grad_features.index_add_(0, sources, linear(slope, weight[tap].t()))
            if grad_weight is not None:
                torch.mm(slope.t(), features.index_select(0, sources), out=grad_weight[tap])
        return grad_features, _transposed(grad_weight), None, None


def _transposed(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.transpose(0, 1)
