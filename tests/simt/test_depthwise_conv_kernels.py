"""The CUDA kernels of depthwise_conv on the interpreter."""

import pytest
import torch
from simt_library import load_simt_library, schedule
from sparse_samples import random_voxels

from perception3d.ops import depthwise_conv, subm_index
from perception3d.ops.reference.depthwise_conv import depthwise_conv as reference

simt = load_simt_library()
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SHAPE = (3, 7, 8)
SIZES = [(3, 3, 3), (1, 1, 13), (1, 5, 1)]


def sample(count, channels, dtype, columns, seed=0):
    """Features, tables, weights (K, C_k) and first channels; eighths, so that sums are exact."""
    generator = torch.Generator().manual_seed(seed)
    coords = random_voxels(count, 2, SHAPE, seed)
    tables = [subm_index(coords, 2, SHAPE, size) for size, _ in zip(SIZES, channels, strict=False)]
    numbers = [(coords.shape[0], columns)]
    numbers += [(table.shape[1], width) for table, width in zip(tables, channels, strict=True)]
    features, *weights = (
        torch.randint(-4, 5, size, generator=generator).to(dtype) / 8 for size in numbers
    )
    start = columns - sum(channels)
    first = [start + sum(channels[:number]) for number in range(len(channels))]
    return features, tables, weights, first


def check_all(features, tables, weights, first, residual):
    """Compare result and gradients with the reference in float64."""
    leaves = [leaf.double().requires_grad_() for leaf in (features, *weights)]
    wanted = reference(
        leaves[0], list(zip(tables, leaves[1:], first, strict=True)), residual=residual
    )
    upstream = torch.arange(wanted.numel()).reshape(wanted.shape) % 9 / 8 - 0.5
    wanted.backward(upstream.double())
    result = simt.depthwise_conv(features, tables, weights, first, residual)
    torch.testing.assert_close(result, wanted.to(features.dtype))
    arguments = (upstream.to(features.dtype), features, tables, weights, first, residual)
    grad_features, grad_weights = simt.depthwise_conv_backward(*arguments, True, True)
    for got, leaf in zip([grad_features, *grad_weights], leaves, strict=True):
        torch.testing.assert_close(got, leaf.grad.to(features.dtype))
    alone, nothing = simt.depthwise_conv_backward(*arguments, True, False)
    assert torch.equal(alone, grad_features)
    assert all(grad.shape[0] == 0 for grad in nothing)
    nothing, alone = simt.depthwise_conv_backward(*arguments, False, True)
    assert all(torch.equal(a, b) for a, b in zip(alone, grad_weights, strict=True))
    assert nothing.shape[0] == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("channels", "columns"), [((16, 8, 8), 40), ((3, 5, 1), 11), ((48,), 48), ((8,), 24)]
)
def test_equals_reference(channels, columns, residual, dtype):
    check_all(*sample(110, channels, dtype, columns), residual)


def test_more_channels_than_a_warp_holds_and_more_rows_than_a_sum():
    check_all(*sample(300, (136, 1), torch.float32, 140), True)


@pytest.mark.parametrize("count", [0, 1, 64, 65])
def test_counts(count):
    check_all(*sample(count, (4, 4), torch.float32, 12), True)


def test_more_parts_than_a_launch_takes():
    features, tables, weights, _ = sample(40, (1,), torch.float32, 40)
    first = list(range(0, 36, 2))
    check_all(features, tables * 18, weights * 18, first, False)


def test_rows_that_no_16_byte_access_can_reach():
    features, tables, weights, first = sample(40, (8,), torch.float32, 16)
    shifted = torch.empty(features.numel() + 1)[1:].view(features.shape).copy_(features)
    assert shifted.data_ptr() % 16 != 0
    check_all(shifted, tables, weights, first, False)


def test_order_of_threads_does_not_matter():
    features, tables, weights, first = sample(150, (8, 4), torch.float32, 16)
    upstream = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    runs = []
    for number in (0, 1, 2):
        with schedule(number):
            grads = simt.depthwise_conv_backward(
                upstream, features, tables, weights, first, True, True, True
            )
        runs.append([grads[0], *grads[1]])
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_equals_the_cpu():
    features, tables, weights, first = sample(150, (32, 32), torch.float32, 96)
    kernels = list(zip(tables, weights, first, strict=True))
    result = simt.depthwise_conv(features, tables, weights, first, True)
    assert torch.equal(result, depthwise_conv(features, kernels, residual=True))


@pytest.mark.parametrize("wrong", [-2, 30])
def test_debug_build_names_a_wrong_neighbour(wrong):
    features, tables, weights, first = sample(30, (4,), torch.float32, 8)
    bad = tables[0].clone()
    bad[7, 2] = wrong
    with pytest.raises(RuntimeError, match=r"depthwise_conv: neighbours \+ 1 must be in 0\.\.30"):
        simt.depthwise_conv(features, [bad], weights, first, False)
    with pytest.raises(RuntimeError, match=r"neighbours \+ 1 must be in 0\.\.30"):
        simt.depthwise_conv_backward(features, features, [bad], weights, first, False, False, True)
