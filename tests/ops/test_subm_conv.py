"""Sub-manifold convolution: values, gradients, layouts of the weight, spconv."""

import warnings

import pytest
import torch
from torch.autograd import gradcheck
from voxel_samples import random_coords, threads

from perception3d.ops import subm_conv, subm_index
from perception3d.ops.reference.subm_conv import subm_conv as reference

BOTH = pytest.mark.parametrize("convolve", [subm_conv, reference])
SHAPE = (4, 9, 9)
native = torch.ops.perception3d


def sample(count, widths, dtype, *, kernel=(3, 3, 3), seed=0):
    """Features, table, weight (K, Cin, Cout) and bias of random voxels."""
    generator = torch.Generator().manual_seed(seed)
    coords = random_coords(count, 2, SHAPE, seed)
    neighbours = subm_index(coords, 2, SHAPE, kernel)
    sizes = [(coords.shape[0], widths[0]), (neighbours.shape[1], *widths), widths[1:]]
    features, weight, bias = (
        torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes
    )
    return features, neighbours, weight, bias


def upstream_of(result):
    """A gradient of mean 0.5, so that its sums, the gradients of the bias, do not cancel."""
    waves = torch.arange(result.numel(), dtype=torch.float64).sin().reshape(result.shape)
    return (waves + 0.5).to(result.dtype)


def with_gradients(convolve, features, neighbours, weight, bias):
    """Result, and the gradients of features, weight and bias."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in (features, weight, bias)]
    result = convolve(leaves[0], neighbours, leaves[1], leaves[2])
    result.backward(upstream_of(result))
    return [result.detach(), *(leaf.grad for leaf in leaves)]


@BOTH
def test_by_hand(convolve):
    # Cells x = 0, 1, 3 of one line, rows shuffled.
    coords = torch.tensor([[0, 0, 0, 3], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.int32)
    neighbours = subm_index(coords, 1, (1, 1, 4), (1, 1, 3))
    features = torch.tensor([[1.0, 0.0], [2.0, 20.0], [3.0, 30.0]], requires_grad=True)
    weight = torch.tensor([[[1.0], [0.0]], [[1.0], [1.0]], [[100.0], [0.0]]], requires_grad=True)
    bias = torch.tensor([0.5], requires_grad=True)
    result = convolve(features, neighbours, weight, bias)
    assert result.tolist() == [[1.5], [322.5], [35.5]]
    result.backward(torch.tensor([[1.0], [2.0], [3.0]]))
    assert features.grad.tolist() == [[1.0, 1.0], [2.0 + 3.0, 2.0], [3.0 + 200.0, 3.0]]
    assert weight.grad.flatten().tolist() == [6.0, 60.0, 14.0, 130.0, 6.0, 60.0]
    assert bias.grad.tolist() == [6.0]


# Widths around the units of 16 (float32) or 8 (float64) columns, panels of 4 units, depths of 128.
WIDTHS = [(1, 1), (3, 5), (16, 16), (20, 33), (40, 64), (7, 50), (130, 90), (128, 128), (5, 200)]


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_reference(widths, dtype):
    inputs = sample(420, widths, dtype, seed=widths[0])
    wanted = with_gradients(
        reference, *(x.double() if x.is_floating_point() else x for x in inputs)
    )
    tolerance = 1e-5 if dtype == torch.float32 else 1e-14
    for got, want in zip(with_gradients(subm_conv, *inputs), wanted, strict=True):
        assert got.dtype == dtype
        assert (got.double() - want).abs().max() / want.abs().max() < tolerance


@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 1, 13), (5, 3, 1)])
def test_other_kernels(kernel):
    inputs = sample(200, (24, 18), torch.float64, kernel=kernel)
    pairs = zip(with_gradients(subm_conv, *inputs), with_gradients(reference, *inputs), strict=True)
    for got, want in pairs:
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32_and_rounded_once(dtype):
    features, neighbours, weight, bias = sample(300, (37, 50), dtype)
    exact = with_gradients(reference, features.double(), neighbours, weight.double(), bias.double())
    ours = with_gradients(subm_conv, features, neighbours, weight, bias)
    assert all(got.dtype == dtype for got in ours)
    half_ulp = torch.finfo(dtype).eps / 2
    torch.testing.assert_close(
        ours[0].double(), exact[0], rtol=half_ulp, atol=1e-6 * exact[0].abs().max().item()
    )
    # The gradients start from a rounded upstream gradient.
    for got, want in zip(ours[1:], exact[1:], strict=True):
        assert (got.double() - want).abs().max() / want.abs().max() < 2 * torch.finfo(dtype).eps


def test_the_same_on_any_number_of_threads():
    coords = random_coords(3000, 1, (6, 40, 40), seed=1)
    neighbours = subm_index(coords, 1, (6, 40, 40), (3, 3, 3))
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(coords.shape[0], 60, generator=generator)
    weight = torch.randn(27, 60, 44, generator=generator)
    runs = []
    for count in (1, 2, 5):
        with threads(count):
            runs.append(with_gradients(subm_conv, features, neighbours, weight, torch.zeros(44)))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_layout_of_spconv():
    features, neighbours, weight, bias = sample(100, (9, 20), torch.float64)
    plain = with_gradients(subm_conv, features, neighbours, weight, bias)
    stored = weight.permute(2, 0, 1).reshape(20, 3, 3, 3, 9).contiguous()
    other = with_gradients(subm_conv, features, neighbours, stored, bias)
    assert torch.equal(other[0], plain[0])
    assert torch.equal(other[1], plain[1])
    assert torch.equal(other[2], plain[2].permute(2, 0, 1).reshape(stored.shape))
    torch.testing.assert_close(
        with_gradients(reference, features, neighbours, stored, bias)[2], other[2]
    )


@pytest.mark.parametrize(("kernel", "widths"), [((3, 3, 3), (16, 24)), ((1, 5, 3), (33, 7))])
def test_equals_spconv(kernel, widths):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # spconv names functions of torch that have moved
        spconv = pytest.importorskip("spconv.pytorch", exc_type=ImportError)
        from spconv.core import ConvAlgo
    coords = random_coords(500, 2, (6, 14, 15), seed=4)
    features = torch.randn(coords.shape[0], widths[0], generator=torch.Generator().manual_seed(4))
    conv = spconv.SubMConv3d(*widths, list(kernel), bias=False, algo=ConvAlgo.Native)
    theirs = features.clone().requires_grad_()
    result = conv(spconv.SparseConvTensor(theirs, coords, [6, 14, 15], 2)).features
    upstream = torch.randn(result.shape, generator=torch.Generator().manual_seed(5))
    result.backward(upstream)

    ours, weight = features.clone().requires_grad_(), conv.weight.detach().clone().requires_grad_()
    neighbours = subm_index(coords, 2, (6, 14, 15), kernel)
    convolved = subm_conv(ours, neighbours, weight)
    convolved.backward(upstream)
    torch.testing.assert_close(convolved, result, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weight.grad, conv.weight.grad, rtol=1e-4, atol=1e-4)


def test_gradients_by_differences():
    features, neighbours, weight, bias = sample(12, (3, 2), torch.float64)
    leaves = [leaf.requires_grad_() for leaf in (features, weight, bias)]
    assert gradcheck(lambda x, w, b: subm_conv(x, neighbours, w, b), leaves)


@pytest.mark.parametrize(
    "wanted", [(True, False, False), (False, True, False), (False, False, True)]
)
def test_only_what_is_asked_for_gets_a_gradient(wanted):
    features, neighbours, weight, bias = sample(60, (8, 5), torch.float32)
    everything = with_gradients(subm_conv, features, neighbours, weight, bias)
    leaves = (features, weight, bias)
    for leaf, wants in zip(leaves, wanted, strict=True):
        leaf.requires_grad_(wants)
    result = subm_conv(features, neighbours, weight, bias)
    result.backward(upstream_of(result))
    for leaf, wants, want in zip(leaves, wanted, everything[1:], strict=True):
        assert torch.equal(leaf.grad, want) if wants else leaf.grad is None


def test_second_derivative_is_refused():
    features, neighbours, weight, _ = sample(20, (4, 3), torch.float64)
    features.requires_grad_()
    result = subm_conv(features, neighbours, weight)
    (grad,) = torch.autograd.grad(result.square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="subm_conv: there is no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("count", [0, 1])
def test_few_voxels(count):
    coords = torch.tensor([[1, 2, 3, 4]], dtype=torch.int32)[:count]
    neighbours = subm_index(coords, 2, SHAPE, (3, 3, 3))
    features, weight = torch.full((count, 5), 3.0), torch.full((27, 5, 4), 2.0)
    bias = torch.tensor([0.0, 1.0, 2.0, 3.0])
    result, grad, grad_weight, _ = with_gradients(subm_conv, features, neighbours, weight, bias)
    assert result.tolist() == [[30.0, 31.0, 32.0, 33.0]] * count
    assert grad.shape == (count, 5)
    assert (grad_weight[13] != 0).any() == (count == 1)
    assert not grad_weight[torch.arange(27) != 13].any()


@pytest.mark.parametrize("widths", [(0, 4), (4, 0)])
def test_no_channels(widths):
    features, neighbours, weight, bias = sample(10, widths, torch.float32)
    result, grad, grad_weight, _ = with_gradients(subm_conv, features, neighbours, weight, bias)
    assert torch.equal(result, bias.expand_as(result))
    assert grad.shape == features.shape
    assert grad_weight.shape == weight.shape


def test_non_contiguous_inputs_and_gradient():
    features, neighbours, weight, bias = sample(80, (6, 9), torch.float64)
    plain = with_gradients(subm_conv, features, neighbours, weight, bias)
    striped = features.T.contiguous().T.requires_grad_()
    turned = weight.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    table = neighbours.repeat_interleave(2, dim=1)[:, ::2]
    result = subm_conv(striped, table, turned, bias.repeat_interleave(2)[::2])
    assert torch.equal(result, plain[0])
    result.sum().backward()  # sum sends an expanded gradient
    leaf = features.clone().requires_grad_()
    reference(leaf, neighbours, weight, bias).sum().backward()
    torch.testing.assert_close(striped.grad, leaf.grad)


@pytest.mark.parametrize("grad", [False, True])
def test_opcheck(grad):
    features, neighbours, weight, bias = sample(15, (3, 2), torch.float32)
    plain = (torch.randn(features.shape[0], 2), features, neighbours, weight)
    for needs in [(True, True), (True, False), (False, True)]:
        torch.library.opcheck(native.subm_conv_backward, (*plain, *needs))
    leaves = [leaf.clone().requires_grad_(grad) for leaf in (features, weight, bias)]
    for offset in (leaves[2], None):
        torch.library.opcheck(native.subm_conv, (leaves[0], neighbours, leaves[1], offset))


def test_compiles_whole_with_gradient():
    features, neighbours, weight, bias = sample(30, (4, 6), torch.float32)

    def loss(leaf, factor, offset):
        return subm_conv(leaf, neighbours, factor, offset).square().sum()

    stored = weight.permute(2, 0, 1).reshape(6, 3, 3, 3, 4)
    plain = [leaf.clone().requires_grad_() for leaf in (features, stored, bias)]
    loss(*plain).backward()
    compiled = [leaf.detach().clone().requires_grad_() for leaf in plain]
    torch.compile(loss, fullgraph=True, backend="aot_eager")(*compiled).backward()
    for got, want in zip(compiled, plain, strict=True):
        torch.testing.assert_close(got.grad, want.grad)


def test_errors():
    features, neighbours, weight, bias = sample(20, (3, 4), torch.float32)
    rows = features.shape[0]
    with pytest.raises(TypeError, match=r"features must be \(N, Cin\) float32 or .* int64"):
        subm_conv(features.long(), neighbours, weight)
    with pytest.raises(TypeError, match=rf"neighbours must be \({rows}, K\) int32, got .* int64"):
        subm_conv(features, neighbours.long(), weight)
    with pytest.raises(ValueError, match=rf"neighbours must be \({rows}, K\) int32"):
        subm_conv(features, neighbours[1:], weight)
    with pytest.raises(TypeError, match=r"weight must be \(27, 3, Cout\) float32, got .* float64"):
        subm_conv(features, neighbours, weight.double())
    with pytest.raises(
        ValueError, match=r"weight must be \(27, 3, Cout\) float32, got \(27, 2, 4\)"
    ):
        subm_conv(features, neighbours, weight[:, 1:])
    with pytest.raises(
        ValueError, match=r"weight must be \(27, 3, Cout\) float32, got \(9, 3, 4\)"
    ):
        subm_conv(features, neighbours, torch.zeros(4, 1, 3, 3, 3))
    with pytest.raises(ValueError, match=r"bias must be \(4,\) float32, got \(3,\) float32"):
        subm_conv(features, neighbours, weight, bias[1:])
    with pytest.raises(ValueError, match="one device"):
        subm_conv(features, neighbours, weight.to("meta"))
    for wrong in (rows, -2):
        bad = neighbours.clone()
        bad[7, 26] = wrong
        with pytest.raises(RuntimeError, match=rf"-1 or in 0\.\.{rows - 1}, .* not in row 7"):
            subm_conv(features, bad, weight)
        for needs in [(True, False), (False, True)]:
            with pytest.raises(RuntimeError, match="not in row 7"):
                native.subm_conv_backward(
                    features[:, :1].repeat(1, 4), features, bad, weight, *needs
                )
