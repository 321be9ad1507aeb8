"""The tests' second run on another device (tests/shadow.py), here on the interpreter."""

import pytest
import torch
from shadow import LARGEST_SIMT, Shadow, _compare
from simt_library import load_simt_library

from perception3d.ops import causal_conv1d, segment_reduce

load_simt_library()


def rows(count=6, columns=3):
    values = torch.arange(float(count * columns)).reshape(count, columns)
    return values.requires_grad_(), torch.arange(count), torch.tensor([0, 2, 2, count])


def test_calls_are_repeated_forward_and_backward():
    with Shadow("simt") as shadow:
        values, order, offsets = rows()
        segment_reduce(values, order, offsets, "mean").sum().backward()
        segment_reduce(values, order, offsets, "max")
    assert shadow.repeated == {
        "perception3d::segment_sum": 1,
        "perception3d::segment_sum_backward": 1,
        "perception3d::segment_max": 1,
    }
    assert not shadow.left_out
    assert "  perception3d::segment_max: 1 calls" in shadow.summary()


def test_large_calls_are_left_out_by_name():
    with Shadow("simt") as shadow:
        segment_reduce(*rows(LARGEST_SIMT, 1))
    assert not shadow.repeated
    assert list(shadow.left_out) == ["perception3d::segment_sum: too large for the interpreter"]


def test_what_cuda_kernels_refuse_is_left_out_by_name():
    with Shadow("simt") as shadow:
        causal_conv1d(
            torch.ones(3, 2, dtype=torch.float64),
            torch.ones(2, 4, dtype=torch.float64),
            None,
            torch.tensor([0, 3]),
        )
    assert not shadow.repeated
    assert list(shadow.left_out) == [
        "perception3d::causal_conv1d: beyond the limits of the CUDA kernels"
    ]


def test_a_kernel_that_differs_is_found(monkeypatch):
    """The shadow's twin of segment_sum gets other rows than the CPU kernel."""
    shadow = Shadow("simt")
    repeat = shadow._repeat
    monkeypatch.setattr(
        shadow,
        "_repeat",
        lambda func, args, kwargs, expected: repeat(func, args, kwargs, expected + 0.01),
    )
    with pytest.raises(AssertionError, match="segment_sum, result 0, simt against CPU"), shadow:
        segment_reduce(*rows())


def test_what_counts_as_equal():
    ones = torch.ones(3)
    _compare("x", ones * (1 + 1e-6), ones, 0.0)
    _compare("x", ones * 1e-3, ones * 0, 100.0)  # sums of large numbers that cancel
    nan = torch.tensor([float("nan"), float("inf")])
    _compare("x", nan, nan, 0.0)
    for ours in (ones * 1.01, ones.double(), ones[:2], ones.int()):
        with pytest.raises(AssertionError):
            _compare("x", ours, ones, 0.0)
    with pytest.raises(AssertionError, match="other numbers"):
        _compare("x", torch.tensor([1]), torch.tensor([2]), 0.0)
