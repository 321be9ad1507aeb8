"""Depth-wise sub-manifold convolution: values, gradients, groups of channels."""

import pytest
import torch
from torch.autograd import gradcheck
from voxel_samples import random_coords, threads

from perception3d.ops import depthwise_conv, subm_index
from perception3d.ops.reference.depthwise_conv import depthwise_conv as reference

BOTH = pytest.mark.parametrize("convolve", [depthwise_conv, reference])
SHAPE = (4, 9, 9)
SIZES = [(3, 3, 3), (1, 1, 13), (1, 5, 1)]
native = torch.ops.perception3d


def sample(count, channels, dtype, *, columns=None, seed=0):
    """Features of `columns` channels, and a kernel of each of SIZES on so many channels."""
    generator = torch.Generator().manual_seed(seed)
    coords = random_coords(count, 2, SHAPE, seed)
    columns = columns or sum(channels)
    features = torch.randn(coords.shape[0], columns, generator=generator, dtype=torch.float64)
    kernels, first = [], columns - sum(channels)
    for size, width in zip(SIZES, channels, strict=False):
        weight = torch.randn(*size, width, generator=generator, dtype=torch.float64)
        kernels.append((subm_index(coords, 2, SHAPE, size), weight.to(dtype), first))
        first += width
    return features.to(dtype), kernels


def with_gradients(convolve, features, kernels, residual):
    """Result, gradient of the features and of every weight."""
    leaf = features.clone().requires_grad_()
    kernels = [(table, weight.clone().requires_grad_(), first) for table, weight, first in kernels]
    result = convolve(leaf, kernels, residual=residual)
    upstream = torch.arange(result.numel(), dtype=torch.float64).sin().reshape(result.shape)
    result.backward(upstream.to(result.dtype))
    return [result.detach(), leaf.grad, *(weight.grad for _, weight, _ in kernels)]


@BOTH
@pytest.mark.parametrize(("residual", "times"), [(False, 1), (True, 2)])
def test_by_hand(convolve, residual, times):
    # Cells x = 0, 1, 3 of one line, rows shuffled; channel 1 has a kernel of three taps along x.
    coords = torch.tensor([[0, 0, 0, 3], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.int32)
    neighbours = subm_index(coords, 1, (1, 1, 4), (1, 1, 3))
    features = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]], requires_grad=True)
    weight = torch.tensor([100.0, 1.0, 0.01]).reshape(1, 1, 3, 1).requires_grad_()
    result = convolve(features, [(neighbours, weight, 1)], residual=residual)
    convolved = torch.tensor([10.0, 20.0 + 0.3, 2000.0 + 30.0])
    wanted = convolved + features[:, 1] if residual else convolved
    torch.testing.assert_close(result[:, 1], wanted)
    assert result[:, 0].tolist() == [1.0 * times, 2.0 * times, 3.0 * times]

    result.backward(torch.tensor([[1.0, 5.0], [1.0, 7.0], [1.0, 9.0]]))
    assert features.grad[:, 0].tolist() == [times] * 3
    grads = torch.tensor([5.0, 7.0 + 900.0, 0.07 + 9.0])
    if residual:
        grads += torch.tensor([5.0, 7.0, 9.0])
    torch.testing.assert_close(features.grad[:, 1], grads)
    assert weight.grad.flatten().tolist() == [20.0 * 9, 50.0 + 140.0 + 270.0, 30.0 * 7]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("channels", "columns"),
    [((32, 32, 32), 128), ((5, 37, 21), 70), ((1, 1, 1), 3), ((150,), 150), ((16, 64), 87)],
)
def test_equals_reference(dtype, residual, channels, columns):
    features, kernels = sample(400, channels, dtype, columns=columns, seed=columns)
    wide = [(table, weight.double(), first) for table, weight, first in kernels]
    wanted = with_gradients(reference, features.double(), wide, residual)
    ours = with_gradients(depthwise_conv, features, kernels, residual)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-14
    for got, want in zip(ours, wanted, strict=True):
        assert got.dtype == dtype
        error = (got.double() - want).abs().max() / want.abs().max()
        assert error < tolerance


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("residual", [False, True])
def test_half_precision_is_summed_in_float32_and_rounded_once(dtype, residual):
    features, kernels = sample(300, (21, 33, 16), dtype, columns=80)
    wide = [(table, weight.double(), first) for table, weight, first in kernels]
    ours = with_gradients(depthwise_conv, features, kernels, residual)
    exact = reference(features.double(), wide, residual=residual)
    scale = exact.abs().max()
    epsilon = torch.finfo(dtype).eps
    torch.testing.assert_close(ours[0].double(), exact, rtol=epsilon / 2, atol=1e-6 * scale.item())
    leaves = with_gradients(reference, features, kernels, residual)
    for got, want in zip(ours[1:], leaves[1:], strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, want, rtol=2 * epsilon, atol=2 * epsilon)


def test_the_same_on_any_number_of_threads():
    coords = random_coords(9000, 2, (8, 60, 60), seed=1)
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(coords.shape[0], 40, generator=generator)
    weight = torch.randn(3, 3, 3, 35, generator=generator)
    kernels = [(subm_index(coords, 2, (8, 60, 60), (3, 3, 3)), weight, 2)]
    runs = []
    for count in (1, 2, 5):
        with threads(count):
            runs.append(with_gradients(depthwise_conv, features, kernels, True))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("residual", [False, True])
def test_gradients_by_differences(residual):
    features, kernels = sample(12, (3, 2), torch.float64, columns=7)
    weights = [weight.requires_grad_() for _, weight, _ in kernels]

    def run(leaf, *factors):
        groups = [(t, w, f) for (t, _, f), w in zip(kernels, factors, strict=True)]
        return depthwise_conv(leaf, groups, residual=residual)

    assert gradcheck(run, (features.requires_grad_(), *weights))


@pytest.mark.parametrize("frozen", ["features", "weights"])
def test_only_what_is_asked_for_gets_a_gradient(frozen):
    features, kernels = sample(60, (8, 5), torch.float32, columns=14)
    everything = with_gradients(depthwise_conv, features, kernels, True)
    features.requires_grad_(frozen != "features")
    for _, weight, _ in kernels:
        weight.requires_grad_(frozen != "weights")
    depthwise_conv(features, kernels, residual=True).backward(
        torch.arange(features.numel(), dtype=torch.float64).sin().reshape(features.shape).float()
    )
    grads = [features.grad, *(weight.grad for _, weight, _ in kernels)]
    for name, got, want in zip(
        ["features", "weights", "weights"], grads, everything[1:], strict=True
    ):
        assert (got is None) if name == frozen else torch.equal(got, want)


def test_second_derivative_is_refused():
    features, kernels = sample(20, (4,), torch.float64)
    features.requires_grad_()
    result = depthwise_conv(features, kernels)
    (grad,) = torch.autograd.grad(result.square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="depthwise_conv: there is no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("count", [0, 1])
def test_few_voxels(count):
    coords = torch.tensor([[1, 2, 3, 4]], dtype=torch.int32)[:count]
    features, weight = torch.full((count, 5), 3.0), torch.full((3, 3, 3, 4), 2.0)
    kernels = [(subm_index(coords, 2, SHAPE, (3, 3, 3)), weight, 1)]
    result, grad, grad_weight = with_gradients(depthwise_conv, features, kernels, False)
    assert result.tolist() == [[3.0, 6.0, 6.0, 6.0, 6.0]] * count
    assert grad.shape == (count, 5)
    rest = grad_weight.flatten(0, 2)
    assert (rest[13] != 0).any() == (count == 1)
    rest[13] = 0
    assert not rest.any()


def test_taps_beyond_the_grid_and_wide_kernels():
    coords = random_coords(50, 1, (1, 1, 40), seed=7)
    table = subm_index(coords, 1, (1, 1, 40), (1, 1, 99))
    features, weight = torch.randn(coords.shape[0], 6), torch.randn(99, 6)
    wanted = reference(features, [(table, weight, 0)])
    torch.testing.assert_close(depthwise_conv(features, [(table, weight, 0)]), wanted)


def test_non_contiguous_inputs_and_gradient():
    features, kernels = sample(80, (6,), torch.float64, columns=8)
    table, weight, first = kernels[0]
    striped = features.T.contiguous().T.requires_grad_()
    factor = weight.flatten(0, 2).T.contiguous().T.requires_grad_()
    wide_table = table.repeat_interleave(2, dim=1)[:, ::2]
    result = depthwise_conv(striped, [(wide_table, factor, first)])
    torch.testing.assert_close(result, reference(features, kernels))
    result.sum().backward()  # sum sends an expanded gradient
    leaf = features.clone().requires_grad_()
    reference(leaf, kernels).sum().backward()
    torch.testing.assert_close(striped.grad, leaf.grad)


@pytest.mark.parametrize("grad", [False, True])
def test_opcheck(grad):
    features, kernels = sample(15, (3, 2), torch.float32, columns=7)
    features.requires_grad_(grad)
    tables = [table for table, _, _ in kernels]
    weights = [weight.flatten(0, 2).requires_grad_(grad) for _, weight, _ in kernels]
    first = [first for _, _, first in kernels]
    torch.library.opcheck(native.depthwise_conv, (features, tables, weights, first, True))
    plain = [weight.detach() for weight in weights]
    upstream = torch.randn(features.shape)
    arguments = (upstream, features.detach(), tables, plain, first, True)
    for needs in [(True, True), (True, False), (False, True)]:
        torch.library.opcheck(native.depthwise_conv_backward, (*arguments, *needs))


def test_compiles_whole_with_gradient():
    features, kernels = sample(30, (4, 3), torch.float32, columns=9)

    def loss(leaf, first, second):
        groups = [(t, w, f) for (t, _, f), w in zip(kernels, (first, second), strict=True)]
        return depthwise_conv(leaf, groups, residual=True).square().sum()

    leaves = [features, *(weight for _, weight, _ in kernels)]
    plain = [leaf.clone().requires_grad_() for leaf in leaves]
    loss(*plain).backward()
    compiled = [leaf.clone().requires_grad_() for leaf in leaves]
    torch.compile(loss, fullgraph=True, backend="aot_eager")(*compiled).backward()
    for got, want in zip(compiled, plain, strict=True):
        torch.testing.assert_close(got.grad, want.grad)


def test_errors():
    features, kernels = sample(21, (3, 2), torch.float32, columns=8)
    (table, weight, first), other = kernels
    with pytest.raises(ValueError, match="kernels must not be empty"):
        depthwise_conv(features, [])
    with pytest.raises(TypeError, match=r"features must be \(N, C\) float32 or .* int64"):
        depthwise_conv(features.long(), kernels)
    with pytest.raises(TypeError, match=r"neighbours 0 must be \(20, K\) int32, got .* int64"):
        depthwise_conv(features, [(table.long(), weight, first)])
    with pytest.raises(ValueError, match=r"neighbours 0 must be \(20, K\) int32, got \(19, 27\)"):
        depthwise_conv(features, [(table[1:], weight, first)])
    with pytest.raises(TypeError, match=r"weight 1 must be \(kz, ky, kx, C_k\) float32, .*float64"):
        depthwise_conv(features, [kernels[0], (other[0], other[1].double(), 6)])
    with pytest.raises(ValueError, match=r"weight 0 must be \(27, C_k\) float32, got \(26, 3\)"):
        depthwise_conv(features, [(table, weight.flatten(0, 2)[1:], first)])
    with pytest.raises(ValueError, match="weight 0 on meta"):
        depthwise_conv(features, [(table, weight.to("meta"), first)])
    for begin, ranges in [(-1, r"-1\.\.1"), (6, r"6\.\.8")]:
        with pytest.raises(ValueError, match=rf"among 0\.\.7 and not overlap, got {ranges}"):
            depthwise_conv(features, [(table, weight, begin)])
    with pytest.raises(ValueError, match=r"not overlap, got 3\.\.5, 5\.\.6"):
        depthwise_conv(features, [(table, weight, 3), (other[0], other[1], 5)])
    for wrong in (20, -2):
        bad = table.clone()
        bad[7, 26] = wrong
        with pytest.raises(RuntimeError, match=r"-1 or in 0\.\.19, table 1 is not in row 7"):
            depthwise_conv(features, [(other[0], other[1], 0), (bad, weight, 3)])
        arguments = ([bad], [weight.flatten(0, 2)], [0], False, True, True)
        with pytest.raises(RuntimeError, match="table 0 is not in row 7"):
            native.depthwise_conv_backward(features, features, *arguments)
