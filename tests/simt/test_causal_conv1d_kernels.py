"""The CUDA kernels of causal_conv1d, forward and backward."""

import pytest
import torch
from scan_samples import assert_near, conv_case, conv_results
from simt_library import schedule

from perception3d.ops.reference.causal_conv1d import causal_conv1d as reference

WALKS = [{}, {"order": True}, {"reverse": True}, {"order": True, "reverse": True}]


def run(kernels, tensors, offsets, named):
    """[y, gradients], in the order of conv_results."""
    silu = named.get("activation") == "silu"
    inputs = (*tensors, offsets, silu, named.get("order"), bool(named.get("reverse")))
    y = kernels.causal_conv1d(*inputs)
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.dtype)
    x, weight, bias = kernels.causal_conv1d_backward(weights, *inputs)
    return [y, x, weight] + ([bias] if tensors[2] is not None else [])


def wanted_of(tensors, offsets, named):
    double = [None if tensor is None else tensor.double() for tensor in tensors]
    return conv_results(double, offsets, named, reference)


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize(
    ("lengths", "channels", "taps"),
    [
        ((1,), 3, 4),
        ((5, 0, 70, 1), 40, 4),  # four channels at a time
        ((32, 33, 31), 6, 3),
        ((2, 1, 1, 3, 40), 8, 4),  # sequences shorter than the taps
        ((66,), 5, 1),
        ((1, 1, 50), 300, 2),  # more channels than a block has threads
        ((70, 9, 20), 3, 9),
        ((40,), 4, 16),
    ],
)
def test_equals_reference(kernels, lengths, channels, taps, activation, walk):
    tensors, offsets, named = conv_case(lengths, channels, taps, **walk)
    named["activation"] = activation
    if taps == 3:
        tensors[2] = None
    case = (tensors, offsets, named)
    assert_near(run(kernels, *case), wanted_of(*case), 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
def test_half_precision(kernels, dtype, tolerance):
    case = conv_case((50, 40), 12, 4, dtype=dtype, order=True)
    ours = run(kernels, *case)
    assert [tensor.dtype for tensor in ours] == [dtype, dtype, torch.float32, torch.float32]
    assert_near(ours, wanted_of(*case), tolerance)


def test_a_row_outside_the_taps_counts_nothing(kernels):
    """Kernels know 4 taps; an infinite row two steps ago must not meet the 2 that there are."""
    (x, weight, bias), offsets, named = conv_case((40,), 4, 2)
    x[10] = torch.inf
    y = run(kernels, (x, weight, bias), offsets, named)[0]
    assert not y[10:12].isfinite().all(1).any()
    assert y[12:].isfinite().all()


@pytest.mark.parametrize(("lengths", "channels"), [((), 3), ((0,), 3), ((0, 0), 3), ((4,), 0)])
def test_nothing_to_do(kernels, lengths, channels):
    case = conv_case(lengths, channels, 4, order=True)
    for ours, wanted in zip(run(kernels, *case), wanted_of(*case), strict=True):
        torch.testing.assert_close(ours, wanted.to(ours.dtype))


@pytest.mark.parametrize("first", [3, 4])
def test_views_are_read_in_place(kernels, first):
    """At column 4 of a wider tensor four channels can be read at a time, at column 3 not."""
    (x, weight, bias), offsets, named = conv_case((70,), 12, 4)
    wanted = run(kernels, (x, weight, bias), offsets, named)
    wide = torch.cat([x, x, x], dim=1)
    wide[:, first : first + 12] = x
    views = (wide[:, first : first + 12], weight, bias)
    for ours, theirs in zip(run(kernels, views, offsets, named), wanted, strict=True):
        assert torch.equal(ours, theirs)


def test_order_of_threads_does_not_matter(interpreter):
    case = conv_case((50, 90), 70, 4, order=True)
    runs = []
    for number in (0, 1, 2):
        with schedule(number):
            runs.append(run(interpreter, *case))
    for other in runs[1:]:
        assert all(map(torch.equal, runs[0], other))


def test_refusals(interpreter):
    tensors, offsets, named = conv_case((4,), 2, 4, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="float64 is computed on the CPU only"):
        run(interpreter, tensors, offsets, named)
    tensors, offsets, named = conv_case((4,), 2, 17)
    with pytest.raises(RuntimeError, match="weight must have at most 16 taps on this device"):
        run(interpreter, tensors, offsets, named)
    tensors, offsets, named = conv_case((4,), 2, 4)
    named["order"] = torch.tensor([0, 1, -1, 2])
    with pytest.raises(RuntimeError, match=r"causal_conv1d: order must be in 0\.\.3, got -1"):
        run(interpreter, tensors, offsets, named)
