"""The CUDA kernels of subm_conv on the interpreter."""

import pytest
import torch
from simt_library import load_simt_library, schedule
from sparse_samples import random_voxels

from perception3d.ops import subm_index
from perception3d.ops.reference.subm_conv import subm_conv as reference

simt = load_simt_library()
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SHAPE = (4, 8, 9)


def sample(count, widths, dtype, kernel=(3, 3, 3), seed=0):
    """Features, table, weight (K, Cin, Cout), bias; small eighths, so that sums are exact."""
    generator = torch.Generator().manual_seed(seed)
    coords = random_voxels(count, 2, SHAPE, seed)
    neighbours = subm_index(coords, 2, SHAPE, kernel)
    sizes = [(coords.shape[0], widths[0]), (neighbours.shape[1], *widths), widths[1:]]
    features, weight, bias = (
        torch.randint(-4, 5, size, generator=generator).to(dtype) / 8 for size in sizes
    )
    return features, neighbours, weight, bias


def check_all(features, neighbours, weight, bias):
    """Compare result and gradients with the reference in float64."""
    leaves = [leaf.double().requires_grad_() for leaf in (features, weight)]
    wanted = reference(leaves[0], neighbours, leaves[1], bias.double())
    upstream = torch.arange(wanted.numel()).reshape(wanted.shape) % 9 / 8 - 0.5
    wanted.backward(upstream.double())
    result = simt.subm_conv(features, neighbours, weight, bias)
    torch.testing.assert_close(result, wanted.to(features.dtype))
    without = reference(leaves[0], neighbours, leaves[1]).detach()
    torch.testing.assert_close(
        simt.subm_conv(features, neighbours, weight, None), without.to(features.dtype)
    )
    arguments = (upstream.to(features.dtype), features, neighbours, weight)
    grads = simt.subm_conv_backward(*arguments, True, True)
    for got, leaf in zip(grads, leaves, strict=True):
        torch.testing.assert_close(got, leaf.grad.to(features.dtype))
    assert torch.equal(simt.subm_conv_backward(*arguments, True, False)[0], grads[0])
    assert torch.equal(simt.subm_conv_backward(*arguments, False, True)[1], grads[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", [(8, 12), (3, 5)])
def test_equals_reference(widths, dtype):
    check_all(*sample(140, widths, dtype))


@pytest.mark.parametrize("widths", [(36, 70), (68, 33)])
def test_more_channels_than_a_tile(widths):
    check_all(*sample(60, widths, torch.float32, kernel=(1, 3, 3)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("widths", [(16, 8), (72, 24), (24, 136)])
def test_tensor_cores(widths, dtype):
    check_all(*sample(150, widths, dtype, kernel=(1, 3, 3)))


def test_more_rows_than_a_chunk_of_a_tap_and_a_batch():
    check_all(*sample(300, (4, 4), torch.float32, kernel=(1, 1, 3)))


@pytest.mark.parametrize("count", [0, 1, 128, 129])
def test_counts(count):
    check_all(*sample(count, (4, 3), torch.float32, kernel=(1, 1, 3)))


@pytest.mark.parametrize("widths", [(0, 4), (4, 0)])
def test_no_channels(widths):
    check_all(*sample(10, widths, torch.float32, kernel=(1, 1, 3)))


def test_parts_of_many_rows_are_joined():
    rows = 5000
    neighbours = torch.arange(rows, dtype=torch.int32)[:, None]
    features = torch.arange(rows * 2).reshape(rows, 2) % 5 / 8
    grad = torch.arange(rows).reshape(rows, 1) % 7 / 4
    weight = torch.ones(1, 2, 1)
    _, grad_weight = simt.subm_conv_backward(grad, features, neighbours, weight, False, True)
    assert torch.equal(grad_weight[0], features.T @ grad)


def test_rows_that_no_16_byte_access_can_reach():
    features, neighbours, weight, bias = sample(40, (8, 8), torch.float32, kernel=(1, 1, 3))
    shifted = torch.empty(features.numel() + 1)[1:].view(features.shape).copy_(features)
    assert shifted.data_ptr() % 16 != 0
    check_all(shifted, neighbours, weight, bias)


def test_order_of_threads_does_not_matter():
    features, neighbours, weight, _ = sample(150, (6, 7), torch.float32, kernel=(1, 3, 3))
    upstream = torch.randn(features.shape[0], 7, generator=torch.Generator().manual_seed(0))
    runs = []
    for number in (0, 1, 2):
        with schedule(number):
            runs.append(simt.subm_conv_backward(upstream, features, neighbours, weight, True, True))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("wrong", [-2, 30])
def test_debug_build_names_a_wrong_neighbour(wrong):
    features, neighbours, weight, _ = sample(30, (4, 4), torch.float32)
    bad = neighbours.clone()
    bad[7, 2] = wrong
    with pytest.raises(RuntimeError, match=r"rows of the table \+ 1 must be in 0\.\.30"):
        simt.subm_conv(features, bad, weight, None)
    with pytest.raises(RuntimeError, match=r"rows of the table \+ 1 must be in 0\.\.30"):
        simt.subm_conv_backward(features, features, bad, weight, False, True)
