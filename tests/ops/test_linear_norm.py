"""Linear maps with residual sums and layer norms: values, other paths, layouts, misuse."""

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import profile
from voxel_samples import threads

from perception3d.ops import linear, linear_norm
from perception3d.ops.reference.linear_norm import linear_norm as reference

native = torch.ops.perception3d


def samples(rows=300, inputs=48, outputs=64, stages=2, *, dtype=torch.float32):
    """Rows, weight, bias and stages."""
    generator = torch.Generator().manual_seed(rows + outputs)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    norms = [(normal(rows, outputs), normal(outputs), normal(outputs)) for _ in range(stages)]
    return normal(rows, inputs), normal(outputs, inputs) / inputs, normal(outputs), norms


def doubled(rows, weight, bias, stages):
    wide = [tuple(tensor.double() for tensor in stage) for stage in stages]
    return rows.double(), weight.double(), None if bias is None else bias.double(), wide


def norms_of(run):
    """How many of torch's norms ran."""
    with profile() as record:
        run()
    return sum(event.name == "aten::layer_norm" for event in record.events())


def test_by_hand():
    rows, weight, bias = torch.tensor([[1.0, 2.0]]), torch.eye(2), torch.tensor([0.0, -1.0])
    # (1, 1) + (2, 0) = (3, 1): mean 2, deviation 1.
    stages = [(torch.tensor([[2.0, 0.0]]), torch.tensor([1.0, 10.0]), torch.tensor([0.5, 0.0]))]
    found = linear_norm(rows, weight, bias, stages, 0.0)
    assert found.tolist() == [[1.5, -10.0]]
    assert linear_norm(rows, weight, bias, []).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("rows", [0, 1, 7, 300, 3000])
@pytest.mark.parametrize("outputs", [2, 7, 16, 64, 70, 192, 200])
@pytest.mark.parametrize("stages", [0, 1, 3])
def test_equals_reference(rows, outputs, stages):
    arguments = samples(rows, 20, outputs, stages)
    # Two numbers may be nearly equal, and their difference then decides: a large epsilon.
    found = linear_norm(*arguments, epsilon=0.1)
    assert found.is_contiguous()
    wanted = reference(*doubled(*arguments), epsilon=0.1)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=2e-5)
    without_bias = linear_norm(arguments[0], arguments[1], None, arguments[3], 0.1)
    wanted = reference(*doubled(arguments[0], arguments[1], None, arguments[3]), epsilon=0.1)
    torch.testing.assert_close(without_bias.double(), wanted, rtol=1e-5, atol=2e-5)


def test_float64_is_as_exact():
    arguments = samples(dtype=torch.float64)
    torch.testing.assert_close(
        linear_norm(*arguments), reference(*arguments), rtol=1e-12, atol=1e-12
    )


def test_a_large_mean_costs_no_digits():
    rows, weight, bias, stages = samples(stages=1)
    kept = stages[0][0] + 1000.0
    found = linear_norm(rows, weight, bias, [(kept, *stages[0][1:])])
    wanted = F.layer_norm(linear(rows, weight, bias) + kept, (64,), *stages[0][1:])
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_a_number_that_is_none_stays_in_its_row():
    rows, weight, bias, stages = samples(40)
    stages[0][0][7, 3] = float("nan")
    found = linear_norm(rows, weight, bias, stages)
    assert found[7].isnan().all()
    assert not found[torch.arange(40) != 7].isnan().any()


def test_rows_depend_on_neither_other_rows_nor_threads():
    rows, weight, bias, stages = samples(3000, 40, 100)
    whole = linear_norm(rows, weight, bias, stages)
    for count in (1, 2, 17, 1023):
        part = [(kept[7 : 7 + count], *norm) for kept, *norm in stages]
        found = linear_norm(rows[7 : 7 + count], weight, bias, part)
        assert torch.equal(found, whole[7 : 7 + count])
    for count in (1, 2, 5):
        with threads(count):
            assert torch.equal(linear_norm(rows, weight, bias, stages), whole)


def test_layouts_and_inputs_that_stay():
    rows, weight, bias, stages = samples()
    wanted = linear_norm(rows, weight, bias, stages)
    strided = [
        (torch.cat([kept, kept], 1)[:, 64:], w.repeat_interleave(2)[::2], b)
        for kept, w, b in stages
    ]
    before = [kept.clone() for kept, _, _ in strided]
    found = linear_norm(rows.t().contiguous().t(), weight.t().contiguous().t(), bias, strided)
    assert torch.equal(found, wanted)
    assert all(torch.equal(kept, old) for (kept, _, _), old in zip(strided, before, strict=True))


def test_gradients_and_other_dtypes_go_through_torch():
    rows, weight, bias, stages = samples()
    assert norms_of(lambda: linear_norm(rows, weight, bias, stages)) == 0
    half = [(kept.bfloat16(), w.bfloat16(), b.bfloat16()) for kept, w, b in stages]
    run = lambda: linear_norm(rows.bfloat16(), weight.bfloat16(), bias.bfloat16(), half)  # noqa: E731
    assert norms_of(run) == 2
    kept = stages[0][0].requires_grad_()
    assert norms_of(lambda: linear_norm(rows, weight, bias, stages)) == 2
    linear_norm(rows, weight, bias, stages).square().sum().backward()
    assert kept.grad.abs().sum() > 0
    with torch.no_grad():
        assert norms_of(lambda: linear_norm(rows, weight, bias, stages)) == 0
    with pytest.raises(RuntimeError, match="gradient goes through linear and layer_norm"):
        native.linear_norm(
            rows, weight, bias, *map(list, zip(*stages, strict=True)), 1e-5
        ).sum().backward()


def test_compiles_and_exports_as_plain_operators():
    class Layer(torch.nn.Linear):
        def forward(self, rows, kept):
            ones = self.bias * 0 + 1
            return linear_norm(rows, self.weight, self.bias, [(kept, ones, self.bias)])

    layer, rows, kept = Layer(48, 64), torch.randn(30, 48), torch.randn(30, 64)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(rows, kept), layer(rows, kept))
    with torch.no_grad():
        graph = str(torch.export.export(layer, (rows, kept)).graph)
    assert "aten.layer_norm" in graph
    assert "perception3d" not in graph


def test_opcheck():
    rows, weight, bias, stages = samples(20, 5, 7)
    lists = [list(part) for part in zip(*stages, strict=True)]
    torch.library.opcheck(native.linear_norm, (rows, weight, bias, *lists, 1e-5))
    torch.library.opcheck(native.linear_norm, (rows, weight, None, [], [], [], 1e-5))


def test_misuse():
    rows, weight, bias, stages = samples()
    kept, norm_weight, norm_bias = stages[0]
    for broken, error, message in [
        ((rows, weight[:, :-1], bias, stages), ValueError, r"linear_norm: weight must be .*48"),
        ((rows, weight, bias[:-1], stages), ValueError, r"bias must be \(64,\)"),
        ((rows, weight, bias, [(kept[:-1], norm_weight, norm_bias)]), ValueError, "kept must be"),
        ((rows, weight, bias, [(kept.double(), norm_weight, norm_bias)]), TypeError, "float64"),
        ((rows, weight, bias, [(kept, norm_weight[:3], norm_bias)]), ValueError, "of a norm must"),
    ]:
        for needs_gradient in (False, True):  # both paths
            broken[0].requires_grad_(needs_gradient)
            with pytest.raises(error, match=message):
                linear_norm(*broken)
    with pytest.raises(TypeError, match="rows must be .*, got list"):
        linear_norm([[1.0]], weight, bias, stages)
    rows.requires_grad_(False)
    with pytest.raises(RuntimeError, match="every norm must have rows, a weight and a bias"):
        native.linear_norm(rows, weight, bias, [kept], [], [norm_bias], 1e-5)
    with pytest.raises(RuntimeError, match="kept must have size 300"):
        native.linear_norm(rows, weight, bias, [kept[:-1]], [norm_weight], [norm_bias], 1e-5)
