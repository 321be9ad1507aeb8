"""Reductions over segments, as done elsewhere."""

import importlib
import importlib.util

import torch
from torch import Tensor

from perception3d.benchmark.measure import Candidate


def torch_scatter_csr(
    values: Tensor, order: Tensor, offsets: Tensor, reduce: str, grad: Tensor | None
) -> Candidate | None:
    """Return torch_scatter's reduction of sorted rows, None without the package.

    Args:
        values: (R, C) rows.
        order: (K,) rows by segment.
        offsets: (N + 1,) first place of each segment in `order`.
        reduce: "mean" or "max".
        grad: gradient of the result; None: forward only.
    """
    if importlib.util.find_spec("torch_scatter") is None:
        return None
    segment_csr = importlib.import_module("torch_scatter").segment_csr

    def run() -> Tensor:
        result: Tensor = segment_csr(values[order], offsets, reduce=reduce)
        return result if grad is None else torch.autograd.grad(result, values, grad)[0]

    return run
