"""Peers of packages that may be missing: here with a stand-in of the same signature."""

import importlib.util
import sys
from types import ModuleType

import pytest
import torch

from perception3d.benchmark.peers.segment_reduce import torch_scatter_csr
from perception3d.ops import segment_reduce


@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_torch_scatter_gets_sorted_rows(monkeypatch, reduce):
    def segment_csr(src, indptr, reduce):
        rows = torch.arange(src.shape[0])
        return segment_reduce(src, rows, indptr, reduce)

    package = ModuleType("torch_scatter")
    package.segment_csr = segment_csr
    monkeypatch.setitem(sys.modules, "torch_scatter", package)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
    values = torch.randn(5, 3, requires_grad=True)
    order, offsets = torch.tensor([4, 1, 0, 3, 2]), torch.tensor([0, 2, 2, 5])
    grad = torch.randn(3, 3)
    result = segment_reduce(values, order, offsets, reduce)
    peer = torch_scatter_csr(values, order, offsets, reduce, None)
    torch.testing.assert_close(peer(), result)
    peer = torch_scatter_csr(values, order, offsets, reduce, grad)
    torch.testing.assert_close(peer(), torch.autograd.grad(result, values, grad)[0])


def test_missing_packages_give_no_peer(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    nothing = torch.zeros(0, dtype=torch.int64)
    assert torch_scatter_csr(torch.zeros(0, 1), nothing, nothing, "mean", None) is None
