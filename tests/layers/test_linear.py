"""Rows through oneDNN equal rows through BLAS."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import grad
from torch.profiler import profile

from perception3d.layers import RowLinear, linear
from perception3d.layers.linear import has_onednn, without_gaps

onednn = pytest.mark.skipif(not has_onednn(), reason="torch without oneDNN")


def operators_of(run):
    """Names of the torch operators that ran."""
    with profile() as record:
        run()
    return {event.name for event in record.events()}


def samples(rows=700, inputs=48, outputs=64, *, dtype=torch.float32):
    generator = torch.Generator().manual_seed(rows)
    shapes = (rows, inputs), (outputs, inputs), (outputs,)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("rows", [0, 1, 20, 700])
@pytest.mark.parametrize(("inputs", "outputs"), [(48, 64), (64, 48), (11, 200)])
@pytest.mark.parametrize("activation", [None, "gelu", "relu"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_equals_torch(rows, inputs, outputs, activation, with_bias):
    leaves = samples(rows, inputs, outputs)[: 2 + with_bias]
    plain = [leaf.double().requires_grad_() for leaf in leaves]
    wanted = F.linear(*plain)
    wanted = wanted if activation is None else getattr(F, activation)(wanted)
    slope = torch.randn(rows, outputs)
    wanted_grads = grad(wanted, plain, slope.double())
    with torch.no_grad():
        fused = linear(*leaves, activation=activation)
    ours = [leaf.requires_grad_() for leaf in leaves]
    result = linear(*ours, activation=activation)
    for numbers, exact in zip(
        (fused, result, *grad(result, ours, slope)), (wanted, wanted, *wanted_grads), strict=True
    ):
        assert numbers.is_contiguous()
        size = exact.detach().abs().max() if exact.numel() else 1.0
        torch.testing.assert_close(numbers.double(), exact, rtol=0, atol=2e-6 * float(size))


@onednn
def test_many_float_rows_go_to_onednn_and_nothing_else():
    rows, weight, bias = samples()
    assert "mkldnn::_linear_pointwise" in operators_of(lambda: linear(rows, weight, bias))
    for run in (
        lambda: linear(rows[:20], weight, bias),
        lambda: linear(rows.double(), weight.double(), bias.double()),
        lambda: linear(rows[None], weight, bias),
    ):
        assert "mkldnn::_linear_pointwise" not in operators_of(run)
    torch._C._set_mkldnn_enabled(False)
    try:
        assert "mkldnn::_linear_pointwise" not in operators_of(lambda: linear(rows, weight, bias))
    finally:
        torch._C._set_mkldnn_enabled(True)


@onednn
def test_without_gradients_the_activation_is_fused():
    rows, weight, bias = samples()
    assert "aten::gelu" not in operators_of(lambda: linear(rows, weight, bias, "gelu"))
    weight.requires_grad_()
    assert "aten::gelu" in operators_of(lambda: linear(rows, weight, bias, "gelu"))


def test_only_wanted_gradients():
    rows, weight, bias = samples()
    rows.requires_grad_()
    linear(rows, weight, bias).sum().backward()
    torch.testing.assert_close(rows.grad[5], weight.sum(0), rtol=1e-5, atol=1e-5)
    bias.requires_grad_()
    (of_bias,) = grad(linear(rows.detach(), weight, bias).sum(), bias)
    torch.testing.assert_close(of_bias, torch.full_like(bias, rows.shape[0]))


def test_second_gradients():
    rows, weight, bias = samples()
    results = []
    for product in (linear, F.linear):
        leaves = [tensor.clone().requires_grad_() for tensor in (rows, weight, bias)]
        first = grad(product(*leaves).square().sum(), leaves, create_graph=True)
        results.append(grad(sum(g.square().sum() for g in first), leaves))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_strided_rows_and_weights():
    rows, weight, bias = samples()
    wide = torch.cat([rows, rows], dim=1)[:, :48]
    tall = weight.t().contiguous().t()
    torch.testing.assert_close(linear(wide, tall, bias), linear(rows, weight, bias))


def test_autocast_computes_in_bfloat16():
    rows, weight, bias = samples()
    weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = linear(rows, weight, bias)
        assert result.dtype == torch.bfloat16
        assert torch.equal(result, F.linear(rows, weight, bias))


def test_the_module_is_a_linear_module():
    module = RowLinear(48, 64)
    assert list(module.state_dict()) == ["weight", "bias"]
    rows = samples()[0]
    torch.testing.assert_close(module(rows), F.linear(rows, module.weight, module.bias))
    assert RowLinear(48, 64, bias=False).bias is None


def test_compiles_and_exports_as_a_plain_product():
    module = RowLinear(48, 64)
    rows = samples()[0]
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(rows), module(rows))
    compiled(rows).sum().backward()
    graph = str(torch.export.export(module, (rows,)).graph)
    assert "aten.linear" in graph
    assert "mkldnn" not in graph
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the older ONNX exporter traces
        traced = torch.jit.trace(module, (rows,))
    assert "mkldnn" not in str(traced.inlined_graph)


@onednn
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 32), (9, 128), (64, 48), (256, 40)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_steady_rows_do_not_depend_on_other_rows(inputs, outputs, with_bias):
    rows, weight, bias = samples(3000, inputs, outputs)
    layer = RowLinear(inputs, outputs, bias=with_bias, steady=True)
    whole = layer(rows)
    for count in (1, 2, 3, 5, 8, 17, 100, 1023):
        assert torch.equal(layer(rows[7 : 7 + count]), whole[7 : 7 + count]), count
        with torch.no_grad():
            assert torch.equal(layer(rows[7 : 7 + count]), whole[7 : 7 + count]), count
    few = linear(rows[:1], weight, bias, "relu", steady=True)
    torch.testing.assert_close(few, F.relu(F.linear(rows[:1], weight, bias)))
    assert linear(rows[:0], weight, bias, steady=True).shape == (0, outputs)


def test_matrices_with_gaps_are_copied_before_onednn_sees_them():
    matrix = torch.randn(6, 8)
    for plain in (matrix, matrix.t(), matrix[:, 2:5], matrix[1:3]):
        assert without_gaps(plain) is plain
    for gaps in (matrix[:, ::2], torch.ones(()).expand(6, 8), matrix[:1].expand(6, 8)):
        assert without_gaps(gaps).is_contiguous()
        assert torch.equal(without_gaps(gaps), gaps)
