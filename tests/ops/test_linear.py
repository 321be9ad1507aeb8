"""Linear maps of rows: values, gradients of any order, layouts, other paths of torch, misuse."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.profiler import profile
from voxel_samples import threads

from perception3d.ops import linear
from perception3d.ops.reference.linear import linear as reference

native = torch.ops.perception3d
ACTIVATIONS = (None, "gelu", "relu")


def samples(rows=700, inputs=48, outputs=64, *, dtype=torch.float32):
    """Rows, weight and bias, whose results are about 1: steep parts of activations count."""
    generator = torch.Generator().manual_seed(rows)
    shapes = (rows, inputs), (outputs, inputs), (outputs,)
    leaves = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    leaves[1] /= inputs
    return leaves


def operators_of(run):
    """Names of the torch operators that ran."""
    with profile() as record:
        run()
    return {event.name for event in record.events()}


def is_ours(run):
    return "perception3d::linear" in operators_of(run)


def assert_near(found, wanted, sizes, tolerance):
    """Equal up to a part of the sums of absolute products, of which sums may cancel."""
    for ours, exact, size in zip(found, wanted, sizes, strict=True):
        assert ours.is_contiguous()
        assert ours.shape == exact.shape
        assert ((ours.double() - exact).abs() <= tolerance * size).all()


def values_and_gradients(product, leaves, activation, slope):
    """Result and gradients of all leaves."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    result = product(*leaves, activation=activation)
    return [result.detach(), *grad(result, leaves, slope)]


def test_by_hand():
    rows = torch.tensor([[1.0, 2.0], [3.0, -4.0]], requires_grad=True)
    weight = torch.tensor([[1.0, 10.0], [0.0, 1.0], [2.0, 0.0]], requires_grad=True)
    bias = torch.tensor([0.5, 0.0, -3.0], requires_grad=True)
    with torch.no_grad():
        assert linear(rows, weight, bias, "relu").tolist() == [[21.5, 2.0, 0.0], [0.0, 0.0, 3.0]]
    result = linear(rows, weight, bias)
    assert result.tolist() == [[21.5, 2.0, -1.0], [-36.5, -4.0, 3.0]]
    result.backward(torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]))
    assert rows.grad.tolist() == [[5.0, 10.0], [0.0, 1.0]]
    assert weight.grad.tolist() == [[1.0, 2.0], [3.0, -4.0], [2.0, 4.0]]
    assert bias.grad.tolist() == [1.0, 1.0, 2.0]


@pytest.mark.parametrize("rows", [0, 1, 5, 20, 700, 3000])
@pytest.mark.parametrize(("inputs", "outputs"), [(48, 64), (64, 48), (11, 200), (1, 1), (130, 7)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_equals_reference(rows, inputs, outputs, activation, with_bias):
    leaves = samples(rows, inputs, outputs)[: 2 + with_bias]
    slope = torch.randn(rows, outputs)
    exact = [leaf.double() for leaf in leaves]
    wanted = values_and_gradients(reference, exact, activation, slope.double())
    sizes = values_and_gradients(reference, [x.abs() for x in exact], None, slope.double().abs())
    found = values_and_gradients(linear, leaves, activation, slope)
    assert_near(found, wanted, sizes, 2e-6)
    with torch.no_grad():
        assert_near([linear(*leaves, activation=activation)], wanted[:1], sizes[:1], 1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_float64_is_as_exact(activation):
    leaves = samples(500, 50, 70, dtype=torch.float64)
    slope = torch.randn(500, 70, dtype=torch.float64)
    found, wanted = (
        values_and_gradients(product, leaves, activation, slope) for product in (linear, reference)
    )
    sizes = values_and_gradients(reference, [x.abs() for x in leaves], None, slope.abs())
    assert_near(found, wanted, sizes, 1e-14)
    assert_near([linear(*leaves, activation)], wanted[:1], sizes[:1], 1e-14)


def test_gelu_of_any_number():
    x = torch.cat([torch.linspace(-20, 20, 40_001), torch.tensor([0.0, -0.0, 1e-30, -1e-30])])
    found = linear(x[:, None], torch.ones(1, 1), activation="gelu")[:, 0]
    wanted = x.double() * torch.special.erfc(-x.double() * 0.5**0.5) / 2
    # The rounding of x^2 counts in the exponent.
    near = (found - wanted).abs() <= (5e-7 + 6e-8 * x.square()) * wanted.abs() + 1e-37
    assert near.all(), x[~near]
    odd = torch.tensor([1e30, -1e30, float("inf"), float("-inf"), float("nan")])
    found = linear(odd[:, None], torch.ones(1, 1), activation="gelu")[:, 0]
    wanted = torch.tensor([1e30, 0.0, float("inf"), float("nan"), float("nan")])
    torch.testing.assert_close(found, wanted, equal_nan=True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_number_that_is_none_stays_in_its_row(activation):
    rows, weight, bias = samples(40)
    rows[7, 3] = float("nan")
    result = linear(rows, weight, bias, activation)
    assert result[7].isnan().all()
    assert not result[torch.arange(40) != 7].isnan().any()


def test_gradients_of_any_order():
    for shape in [(7, 5, 9), (1, 3, 1), (13, 17, 6), (0, 3, 2)]:
        leaves = [leaf.requires_grad_() for leaf in samples(*shape, dtype=torch.float64)]
        assert gradcheck(linear, leaves)
        assert gradcheck(linear, leaves[:2])
        assert gradgradcheck(linear, leaves)
        assert gradgradcheck(linear, leaves[:2])


def test_only_wanted_gradients():
    rows, weight, bias = samples()
    rows.requires_grad_()
    linear(rows, weight, bias).sum().backward()
    torch.testing.assert_close(rows.grad[5], weight.sum(0), rtol=1e-5, atol=1e-5)
    bias.requires_grad_()
    (of_bias,) = grad(linear(rows.detach(), weight, bias).sum(), bias)
    torch.testing.assert_close(of_bias, torch.full_like(bias, rows.shape[0]))
    weight.requires_grad_()
    run = lambda: grad(linear(rows.detach(), weight).sum(), weight)  # noqa: E731
    assert "perception3d::linear_weight_gradient" in operators_of(run)


@pytest.mark.parametrize(("inputs", "outputs"), [(8, 32), (9, 128), (64, 48), (256, 40)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_row_does_not_depend_on_other_rows(inputs, outputs, activation):
    rows, weight, bias = samples(3000, inputs, outputs)
    whole = linear(rows, weight, bias, activation)
    for count in (0, 1, 2, 3, 5, 8, 17, 100, 1023):
        found = linear(rows[7 : 7 + count], weight, bias, activation)
        assert torch.equal(found, whole[7 : 7 + count]), count


def test_results_do_not_depend_on_threads():
    leaves = [leaf.requires_grad_() for leaf in samples(5000, 100, 90)]
    slope = torch.randn(5000, 90)
    found = []
    for count in (1, 2, 5):
        with threads(count):
            result = linear(*leaves)
            found.append((result, *grad(result, leaves, slope)))
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_layouts():
    rows, weight, bias = samples()
    wanted = linear(rows, weight, bias)
    wide = torch.cat([rows, rows], dim=1)[:, :48]
    tall = weight.t().contiguous().t()
    gaps = rows.repeat_interleave(2, dim=1)[:, ::2]
    assert torch.equal(linear(wide, tall, bias), wanted)
    assert torch.equal(linear(gaps, weight, bias.repeat_interleave(2)[::2]), wanted)
    same = linear(rows[:1].expand(30, -1), weight, bias)
    assert torch.equal(same, wanted[:1].expand(30, -1))
    for leaf in (wide, tall):
        leaf.requires_grad_()
    found = grad(linear(wide, tall, bias).sum(), (wide, tall))  # a gradient with strides of 0
    for ours, want in zip(found, (weight.sum(0).expand(700, -1), rows.sum(0)), strict=True):
        torch.testing.assert_close(ours, want.expand_as(ours), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gap", [1, 16, 2000])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 30), (50, 30), (1040, 20), (32, 1030)])
def test_gradients_of_rows_that_lie_apart(inputs, outputs, gap):
    generator = torch.Generator().manual_seed(0)
    wide = [
        torch.randn(300, columns + gap, generator=generator)[:, :columns]
        for columns in (inputs, outputs)
    ]
    rows, slope = wide
    weight, bias = native.linear_weight_gradient(slope, rows, True)
    rows, slope = rows.double(), slope.double()
    exact = [slope.t() @ rows, slope.sum(0)]
    sizes = [slope.abs().t() @ rows.abs(), slope.abs().sum(0)]
    assert_near([weight, bias], exact, sizes, 2e-6)


def test_everything_else_goes_to_torch():
    rows, weight, bias = samples()
    assert is_ours(lambda: linear(rows, weight, bias))
    half = [leaf.bfloat16() for leaf in (rows, weight, bias)]
    assert not is_ours(lambda: linear(*half))
    assert torch.equal(linear(*half, "relu"), F.relu(F.linear(*half)))
    weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = linear(rows, weight, bias)
        assert result.dtype == torch.bfloat16
        assert torch.equal(result, F.linear(rows, weight, bias))


def test_the_activation_is_fused_without_gradients_only():
    rows, weight, bias = samples()
    assert "aten::gelu" not in operators_of(lambda: linear(rows, weight, bias, "gelu"))
    weight.requires_grad_()
    assert "aten::gelu" in operators_of(lambda: linear(rows, weight, bias, "gelu"))
    with torch.no_grad():
        assert "aten::gelu" not in operators_of(lambda: linear(rows, weight, bias, "gelu"))
    with pytest.raises(RuntimeError, match="gradient goes through activations outside"):
        native.linear(rows, weight, bias, 2)


def test_compiles_and_exports_as_a_plain_product():
    class Layer(torch.nn.Linear):
        def forward(self, rows):
            return linear(rows, self.weight, self.bias, "relu")

    layer, rows = Layer(48, 64), samples()[0]
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(rows), layer(rows))
    compiled(rows).sum().backward()
    graph = str(torch.export.export(layer, (rows,)).graph)
    assert "aten.linear" in graph
    assert "perception3d" not in graph
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the older ONNX exporter traces
        traced = torch.jit.trace(layer, (rows,))
    assert "perception3d::" not in str(traced.inlined_graph)


def test_opcheck():
    rows, weight, bias = (leaf.requires_grad_() for leaf in samples(20, 5, 7))
    torch.library.opcheck(native.linear, (rows, weight, bias, 0))
    torch.library.opcheck(native.linear, (rows, weight, None, 0))
    torch.library.opcheck(native.linear, (rows.detach(), weight.detach(), None, 2))
    for needs_bias in (True, False):
        arguments = (torch.randn(20, 7, requires_grad=True), rows, needs_bias)
        torch.library.opcheck(native.linear_weight_gradient, arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rows": [[1.0]]}, TypeError, r"linear: rows must be \(N, Cin\).*, got list"),
        ({"rows": torch.zeros(3)}, ValueError, r"rows must be \(N, Cin\).*got \(3,\) float32"),
        ({"rows": torch.zeros(3, 48).int()}, TypeError, "rows must be.*got .* int32"),
        ({"weight": torch.zeros(64, 47)}, ValueError, r"weight must be \(Cout, 48\).*\(64, 47\)"),
        ({"weight": torch.zeros(64, 48).double()}, TypeError, "weight must be.*float64"),
        ({"bias": torch.zeros(63)}, ValueError, r"bias must be \(64,\) float32, got \(63,\)"),
        ({"bias": torch.zeros(64, device="meta")}, ValueError, "bias on meta"),
        ({"activation": "tanh"}, ValueError, "activation must be None or one of .*got 'tanh'"),
    ],
)
def test_misuse(change, error, message):
    arguments = dict(zip(("rows", "weight", "bias"), samples(), strict=True))
    with pytest.raises(error, match=message):
        linear(**(arguments | change))


def test_the_native_operator_checks_what_protects_memory():
    rows, weight, bias = samples()
    for broken, message in [
        ((rows, weight[:, :-1], bias, 0), "weight must have size 48"),
        ((rows, weight, bias[:-1], 0), "bias must have size 64"),
        ((rows[:, ::2], weight[:, ::2], bias, 0), "rows must have rows without gaps"),
        ((rows, weight.double(), bias, 0), "weight must be Float"),
        ((rows.half(), weight, bias, 0), "rows must be float32 or float64"),
        ((rows, weight, bias, 3), "activation must be 0, 1 or 2, got 3"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            native.linear(*broken)
    with pytest.raises(RuntimeError, match="rows must have size 700"):
        native.linear_weight_gradient(torch.zeros(700, 3), rows[:-1], False)
