"""The CUDA kernels of sparse_conv on the interpreter: tables whose two sides differ.

Kernels of a table with one side are tested in test_subm_conv_kernels.py: they are the same.
"""

import pytest
import torch
from simt_library import schedule
from sparse_samples import STRIDED, random_voxels

from perception3d.ops import sparse_index
from perception3d.ops.reference.sparse_conv import sparse_conv as reference

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SHAPE = (5, 8, 9)
BOTH_WAYS = pytest.mark.parametrize("inverse", [False, True])


def sample(count, widths, dtype, setting=STRIDED[0], *, inverse=False):
    """Features, both tables, weight (K, Cin, Cout), bias; small eighths, so that sums are exact."""
    generator = torch.Generator().manual_seed(count)
    coords = random_voxels(count, 2, SHAPE, seed=count)
    _, inputs, outputs = sparse_index(coords, 2, SHAPE, *setting)
    tables = (outputs, inputs) if inverse else (inputs, outputs)
    sizes = [(tables[1].shape[0], widths[0]), (inputs.shape[1], *widths), widths[1:]]
    features, weight, bias = (
        torch.randint(-4, 5, size, generator=generator).to(dtype) / 8 for size in sizes
    )
    return features, *tables, weight, bias


def check_all(kernels, features, inputs, outputs, weight, bias):
    """Compare result and gradients with the reference in float64."""
    leaves = [leaf.double().requires_grad_() for leaf in (features, weight)]
    wanted = reference(leaves[0], inputs, outputs, leaves[1], bias.double())
    upstream = torch.arange(wanted.numel()).reshape(wanted.shape) % 9 / 8 - 0.5
    wanted.backward(upstream.double())
    result = kernels.sparse_conv(features, inputs, outputs, weight, bias)
    torch.testing.assert_close(result, wanted.to(features.dtype))
    without = reference(leaves[0], inputs, outputs, leaves[1]).detach().to(features.dtype)
    torch.testing.assert_close(
        kernels.sparse_conv(features, inputs, outputs, weight, None), without
    )
    arguments = (upstream.to(features.dtype), features, inputs, outputs, weight)
    grads = kernels.sparse_conv_backward(*arguments, True, True)
    for got, leaf in zip(grads, leaves, strict=True):
        torch.testing.assert_close(got, leaf.grad.to(features.dtype))
    assert torch.equal(kernels.sparse_conv_backward(*arguments, True, False)[0], grads[0])
    assert torch.equal(kernels.sparse_conv_backward(*arguments, False, True)[1], grads[1])


@BOTH_WAYS
@pytest.mark.parametrize("setting", STRIDED)
def test_equals_reference(kernels, setting, inverse):
    check_all(kernels, *sample(90, (4, 5), torch.float32, setting, inverse=inverse))


@BOTH_WAYS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("widths", [(8, 12), (3, 5), (16, 24)])
def test_types_and_widths(kernels, widths, dtype, inverse):
    check_all(kernels, *sample(100, widths, dtype, STRIDED[1], inverse=inverse))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tensor_cores_with_more_channels_than_a_tile(kernels, dtype):
    check_all(kernels, *sample(70, (72, 136), dtype, STRIDED[1]))


@BOTH_WAYS
@pytest.mark.parametrize("count", [0, 1])
def test_few_voxels(kernels, count, inverse):
    check_all(kernels, *sample(count, (4, 3), torch.float32, inverse=inverse))


def test_more_outputs_than_voxels(kernels):
    arguments = sample(20, (4, 3), torch.float32, ((3, 3, 3), (1, 1, 1), (1, 1, 1)))
    assert arguments[1].shape[0] > 129  # and more than a block has
    check_all(kernels, *arguments)


def test_no_outputs(kernels):
    tables = torch.zeros(0, 2, dtype=torch.int32), torch.full((3, 2), -1, dtype=torch.int32)
    check_all(kernels, torch.ones(3, 4), *tables, torch.ones(2, 4, 5), torch.zeros(5))
    check_all(kernels, torch.ones(0, 4), *tables[::-1], torch.ones(2, 4, 5), torch.ones(5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("widths", [(8, 16), (3, 5)])
def test_weights_are_read_as_they_lie(kernels, widths, dtype):
    features, inputs, outputs, weight, bias = sample(60, widths, dtype, STRIDED[1])
    as_spconv = weight.permute(2, 0, 1).contiguous().permute(1, 2, 0)  # (Cout, K, Cin) in memory
    gaps = weight.repeat_interleave(2, dim=2)[:, :, ::2]
    for other in (as_spconv, gaps):
        assert not other.is_contiguous()
        check_all(kernels, features, inputs, outputs, other, bias)


@BOTH_WAYS
def test_order_of_threads_does_not_matter(interpreter, inverse):
    features, *tables, weight, _ = sample(150, (6, 7), torch.float32, STRIDED[1], inverse=inverse)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(features.shape, generator=generator)
    upstream = torch.randn(tables[0].shape[0], 7, generator=generator)
    runs = []
    for number in (0, 1, 2):
        with schedule(number):
            result = interpreter.sparse_conv(features, *tables, weight, None)
            grads = interpreter.sparse_conv_backward(
                upstream, features, *tables, weight, True, True
            )
            runs.append((result, *grads))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_debug_build_names_a_wrong_row(interpreter):
    features, inputs, outputs, weight, _ = sample(30, (4, 4), torch.float32)
    for wrong in (-2, features.shape[0]):
        bad = inputs.clone()
        bad[3, 2] = wrong
        message = rf"rows of the table \+ 1 must be in 0\.\.{features.shape[0]}"
        with pytest.raises(RuntimeError, match=message):
            interpreter.sparse_conv(features, bad, outputs, weight, None)
    upstream = torch.ones(inputs.shape[0], 4)
    bad = outputs.clone()
    bad[3, 2] = inputs.shape[0]
    with pytest.raises(RuntimeError, match=r"rows of the table \+ 1 must be in"):
        interpreter.sparse_conv_backward(upstream, features, inputs, bad, weight, True, False)
