"""Strided and inverse sparse convolution: values, gradients, layouts of the weight, misuse."""

import pytest
import torch
from torch.autograd import gradcheck
from voxel_samples import random_coords, threads

from perception3d.ops import sparse_conv, sparse_index
from perception3d.ops.reference.sparse_conv import sparse_conv as reference

BOTH = pytest.mark.parametrize("convolve", [sparse_conv, reference])
SHAPE = (4, 9, 9)
native = torch.ops.perception3d


def sample(count, widths, dtype, *, inverse=False, seed=0):
    """Features, both tables, weight (K, Cin, Cout) and bias of random voxels."""
    generator = torch.Generator().manual_seed(seed)
    coords = random_coords(count, 2, SHAPE, seed)
    _, inputs, outputs = sparse_index(coords, 2, SHAPE, (3, 3, 3), (2, 2, 2), (1, 1, 1))
    tables = (outputs, inputs) if inverse else (inputs, outputs)
    sizes = [(tables[1].shape[0], widths[0]), (27, *widths), widths[1:]]
    features, weight, bias = (
        torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes
    )
    return features, *tables, weight, bias


def upstream_of(result):
    """A gradient of mean 0.5, so that its sums, the gradients of the bias, do not cancel."""
    waves = torch.arange(result.numel(), dtype=torch.float64).sin().reshape(result.shape)
    return (waves + 0.5).to(result.dtype)


def with_gradients(convolve, features, inputs, outputs, weight, bias):
    """Result, and the gradients of features, weight and bias."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in (features, weight, bias)]
    result = convolve(leaves[0], inputs, outputs, leaves[1], leaves[2])
    result.backward(upstream_of(result))
    return [result.detach(), *(leaf.grad for leaf in leaves)]


@BOTH
def test_by_hand(convolve):
    # Cells 0, 3 and 5 of one line; outputs 0, 1, 2 see the cells 2 o - 1 .. 2 o + 1.
    coords = torch.tensor([[0, 0, 0, 5], [0, 0, 0, 0], [0, 0, 0, 3]], dtype=torch.int32)
    setting = (1, (1, 1, 6), (1, 1, 3), (1, 1, 2), (0, 0, 1))
    _, inputs, outputs = sparse_index(coords, *setting)
    features = torch.tensor([[5.0], [1.0], [3.0]], requires_grad=True)
    weight = torch.tensor([[[1.0]], [[10.0]], [[100.0]]], requires_grad=True)
    result = convolve(features, inputs, outputs, weight, torch.tensor([0.5]))
    assert result.tolist() == [[10.5], [300.5], [503.5]]
    result.backward(torch.tensor([[1.0], [2.0], [4.0]]))
    assert features.grad.tolist() == [[400.0], [10.0], [2 * 100.0 + 4 * 1.0]]
    assert weight.grad.flatten().tolist() == [12.0, 1.0, 6.0 + 20.0]
    back = convolve(result.detach(), outputs, inputs, weight.detach())
    assert back.tolist() == [[50350.0], [105.0], [100 * 300.5 + 503.5]]


@pytest.mark.parametrize("widths", [(1, 1), (20, 33), (7, 50), (130, 90), (128, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("inverse", [False, True])
def test_equals_reference(widths, dtype, inverse):
    arguments = sample(420, widths, dtype, inverse=inverse, seed=widths[0])
    wanted = with_gradients(
        reference, *(x.double() if x.is_floating_point() else x for x in arguments)
    )
    tolerance = 1e-5 if dtype == torch.float32 else 1e-14
    for got, want in zip(with_gradients(sparse_conv, *arguments), wanted, strict=True):
        assert got.dtype == dtype
        assert (got.double() - want).abs().max() / want.abs().max() < tolerance


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32_and_rounded_once(dtype):
    features, inputs, outputs, weight, bias = sample(300, (37, 50), dtype)
    exact = with_gradients(
        reference, features.double(), inputs, outputs, weight.double(), bias.double()
    )
    ours = with_gradients(sparse_conv, features, inputs, outputs, weight, bias)
    assert all(got.dtype == dtype for got in ours)
    half_ulp = torch.finfo(dtype).eps / 2
    torch.testing.assert_close(
        ours[0].double(), exact[0], rtol=half_ulp, atol=1e-6 * exact[0].abs().max().item()
    )
    for got, want in zip(ours[1:], exact[1:], strict=True):
        assert (got.double() - want).abs().max() / want.abs().max() < 2 * torch.finfo(dtype).eps


def test_the_same_on_any_number_of_threads():
    coords = random_coords(3000, 1, (6, 40, 40), seed=1)
    _, *tables = sparse_index(coords, 1, (6, 40, 40), (3, 3, 3), (2, 2, 2), (1, 1, 1))
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(coords.shape[0], 60, generator=generator)
    weight = torch.randn(27, 60, 44, generator=generator)
    runs = []
    for count in (1, 2, 5):
        with threads(count):
            runs.append(with_gradients(sparse_conv, features, *tables, weight, torch.zeros(44)))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_layout_of_spconv():
    features, inputs, outputs, weight, bias = sample(100, (9, 20), torch.float64)
    plain = with_gradients(sparse_conv, features, inputs, outputs, weight, bias)
    stored = weight.permute(2, 0, 1).reshape(20, 3, 3, 3, 9).contiguous()
    for convolve in (sparse_conv, reference):
        other = with_gradients(convolve, features, inputs, outputs, stored, bias)
        torch.testing.assert_close(other[0], plain[0])
        torch.testing.assert_close(other[1], plain[1])
        torch.testing.assert_close(other[2], plain[2].permute(2, 0, 1).reshape(stored.shape))


@pytest.mark.parametrize("inverse", [False, True])
def test_gradients_by_differences(inverse):
    features, inputs, outputs, weight, bias = sample(9, (3, 2), torch.float64, inverse=inverse)
    leaves = [leaf.requires_grad_() for leaf in (features, weight, bias)]
    assert gradcheck(lambda x, w, b: sparse_conv(x, inputs, outputs, w, b), leaves)


@pytest.mark.parametrize(
    "wanted", [(True, False, False), (False, True, False), (False, False, True)]
)
def test_only_what_is_asked_for_gets_a_gradient(wanted):
    features, inputs, outputs, weight, bias = sample(60, (8, 5), torch.float32)
    everything = with_gradients(sparse_conv, features, inputs, outputs, weight, bias)
    leaves = (features, weight, bias)
    for leaf, wants in zip(leaves, wanted, strict=True):
        leaf.requires_grad_(wants)
    result = sparse_conv(features, inputs, outputs, weight, bias)
    result.backward(upstream_of(result))
    for leaf, wants, want in zip(leaves, wanted, everything[1:], strict=True):
        assert torch.equal(leaf.grad, want) if wants else leaf.grad is None


def test_second_derivative_is_refused():
    features, inputs, outputs, weight, _ = sample(20, (4, 3), torch.float64)
    features.requires_grad_()
    result = sparse_conv(features, inputs, outputs, weight)
    (grad,) = torch.autograd.grad(result.square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="sparse_conv: there is no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("count", [0, 1])
def test_few_voxels(count):
    coords = torch.tensor([[1, 2, 4, 4]], dtype=torch.int32)[:count]
    _, inputs, outputs = sparse_index(coords, 2, SHAPE, (3, 3, 3), (2, 2, 2), (1, 1, 1))
    features, weight = torch.full((count, 5), 3.0), torch.full((27, 5, 4), 2.0)
    bias = torch.tensor([0.0, 1.0, 2.0, 3.0])
    result, grad, grad_weight, _ = with_gradients(
        sparse_conv, features, inputs, outputs, weight, bias
    )
    assert result.tolist() == [[30.0, 31.0, 32.0, 33.0]] * count
    assert grad.shape == (count, 5)
    assert (grad_weight[13] != 0).any() == (count == 1)


def test_no_outputs():
    tables = torch.zeros(0, 2, dtype=torch.int32), torch.full((3, 2), -1, dtype=torch.int32)
    arguments = torch.ones(3, 4), *tables, torch.ones(2, 4, 5), torch.zeros(5)
    result, grad, grad_weight, _ = with_gradients(sparse_conv, *arguments)
    assert result.shape == (0, 5)
    assert not grad.any()
    assert not grad_weight.any()
    back = sparse_conv(torch.ones(0, 4), tables[1], tables[0], torch.ones(2, 4, 5), torch.ones(5))
    assert torch.equal(back, torch.ones(3, 5))


def test_non_contiguous_inputs_and_gradient():
    features, inputs, outputs, weight, bias = sample(80, (6, 9), torch.float64)
    plain = with_gradients(sparse_conv, features, inputs, outputs, weight, bias)
    striped = features.T.contiguous().T.requires_grad_()
    turned = weight.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    tables = [table.repeat_interleave(2, dim=1)[:, ::2] for table in (inputs, outputs)]
    result = sparse_conv(striped, *tables, turned, bias.repeat_interleave(2)[::2])
    assert torch.equal(result, plain[0])
    result.sum().backward()  # sum sends an expanded gradient
    leaf = features.clone().requires_grad_()
    reference(leaf, inputs, outputs, weight, bias).sum().backward()
    torch.testing.assert_close(striped.grad, leaf.grad)


@pytest.mark.parametrize("grad", [False, True])
def test_opcheck(grad):
    features, inputs, outputs, weight, bias = sample(15, (3, 2), torch.float32)
    plain = (torch.randn(inputs.shape[0], 2), features, inputs, outputs, weight)
    for needs in [(True, True), (True, False), (False, True)]:
        torch.library.opcheck(native.sparse_conv_backward, (*plain, *needs))
    leaves = [leaf.clone().requires_grad_(grad) for leaf in (features, weight, bias)]
    for offset in (leaves[2], None):
        torch.library.opcheck(native.sparse_conv, (leaves[0], inputs, outputs, leaves[1], offset))


def test_compiles_whole_with_gradient():
    features, inputs, outputs, weight, bias = sample(30, (4, 6), torch.float32)

    def loss(leaf, factor, offset):
        return sparse_conv(leaf, inputs, outputs, factor, offset).square().sum()

    leaves = [leaf.requires_grad_() for leaf in (features, weight, bias)]
    want = torch.autograd.grad(loss(*leaves), leaves)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for got, expected in zip(torch.autograd.grad(compiled(*leaves), leaves), want, strict=True):
        torch.testing.assert_close(got, expected)


def test_errors():
    features, inputs, outputs, weight, bias = sample(30, (4, 6), torch.float32)
    with pytest.raises(TypeError, match=r"inputs must be \(M, K\) int32, got .* int64"):
        sparse_conv(features, inputs.long(), outputs, weight)
    with pytest.raises(ValueError, match=r"sparse_conv: outputs must be \(\d+, 27\) int32"):
        sparse_conv(features, inputs, outputs[:-1], weight)
    with pytest.raises(ValueError, match=r"weight must be \(27, 4, Cout\)"):
        sparse_conv(features, inputs, outputs, weight[:, :3])
    with pytest.raises(TypeError, match=r"weight must be .* float32, got .* float64"):
        sparse_conv(features, inputs, outputs, weight.double())
    with pytest.raises(ValueError, match=r"bias must be \(6,\) float32, got \(5,\)"):
        sparse_conv(features, inputs, outputs, weight, bias[:5])
    for wrong in (-2, features.shape[0]):
        spoilt = inputs.clone()
        spoilt[5, 20] = wrong
        with pytest.raises(RuntimeError, match=r"inputs must be -1 or in 0..\d+, .* in row 5"):
            sparse_conv(features, spoilt, outputs, weight)
    spoilt = outputs.clone()
    spoilt[3, 0] = inputs.shape[0]
    leaf = features.requires_grad_()
    with pytest.raises(RuntimeError, match=r"outputs must be -1 or in 0..\d+, .* in row 3"):
        sparse_conv(leaf, inputs, spoilt, weight).sum().backward()
