"""A layer of a set transformer in one operator: values, other paths, layouts, misuse."""

from functools import partial

import pytest
import torch
from torch.profiler import profile
from voxel_samples import threads

from perception3d.ops import TransformerParameters
from perception3d.ops import set_transformer as operator
from perception3d.ops.reference.set_transformer import set_transformer as operator_in_torch

native = torch.ops.perception3d


def run(function, heads, maps, norms, activation="gelu", epsilon=1e-5, **tensors):
    return function(layer=TransformerParameters(heads, maps, norms, activation, epsilon), **tensors)


set_transformer = partial(run, operator)
reference = partial(run, operator_in_torch)


def samples(sizes, width=24, heads=3, hidden=40, further=1, places=6, *, dtype=torch.float32):
    """Arguments of a layer on sets of these sizes; rows lie anywhere."""
    rows = sum(sizes)
    generator = torch.Generator().manual_seed(rows + width)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    def linear_map(outputs, inputs):
        return normal(outputs, inputs) / inputs**0.5, normal(outputs) / 4

    def norm():
        return normal(width), normal(width)

    return {
        "rows": normal(rows, width),
        "position": normal(places, width),
        "index": torch.randint(places, (rows,), generator=generator),
        "order": torch.randperm(rows, generator=generator),
        "offsets": torch.tensor([0, *sizes]).cumsum(0),
        "heads": heads,
        "maps": (
            linear_map(3 * width, width),
            linear_map(width, width),
            linear_map(hidden, width),
            linear_map(width, hidden),
        ),
        "norms": (norm(), norm()),
        "after": [(normal(rows, width), norm()) for _ in range(further)],
    }


def changed(layer, change):
    """The same layer with every tensor of real numbers changed."""
    if isinstance(layer, dict):
        return {name: changed(part, change) for name, part in layer.items()}
    if isinstance(layer, tuple | list):
        return type(layer)(changed(part, change) for part in layer)
    is_real = isinstance(layer, torch.Tensor) and layer.is_floating_point()
    return change(layer) if is_real else layer


def native_arguments(layer):
    norms = [*layer["norms"], *(norm for _, norm in layer["after"])]
    return [
        layer["rows"],
        layer["position"],
        layer["index"],
        layer["order"],
        layer["offsets"],
        layer["heads"],
        [weight for weight, _ in layer["maps"]],
        [bias for _, bias in layer["maps"]],
        2,
        [kept for kept, _ in layer["after"]],
        [weight for weight, _ in norms],
        [bias for _, bias in norms],
        1e-5,
    ]


def norms_of(call):
    """How many of torch's norms ran."""
    with profile() as record:
        call()
    return sum(event.name == "aten::layer_norm" for event in record.events())


def test_by_hand():
    one, zero = torch.eye(2), torch.zeros(2)
    nothing = torch.zeros(2, 2)
    layer = {
        "rows": torch.tensor([[2.0, 0.0], [4.0, 2.0]]),
        "position": torch.tensor([[7.0, 7.0]]),
        "index": torch.tensor([0, 0]),
        "order": torch.tensor([1, 0]),
        "offsets": torch.tensor([0, 2]),
        "heads": 1,
        # No queries or keys: everybody takes the mean of the values, (3, 1).
        "maps": (
            (torch.cat([nothing, nothing, one]), torch.zeros(6)),
            (one, torch.tensor([0.0, -1.0])),
            (one, zero),
            (3 * one, zero),
        ),
        "norms": ((torch.ones(2), zero), (torch.tensor([1.0, 10.0]), torch.tensor([0.5, 0.0]))),
        "activation": "relu",
        "epsilon": 0.0,
    }
    # (3, 0) + rows = (5, 0) and (7, 2), both normal (1, -1); ReLU (1, 0), times 3, plus (1, -1):
    # (4, -1), normal (1, -1).
    assert set_transformer(**layer).tolist() == [[1.5, -10.0], [1.5, -10.0]]
    # plus (0, 20) and (0, 8.5): (1.5, 10), normal (-1, 1), and (1.5, -1.5), normal (1, -1).
    kept = torch.tensor([[0.0, 20.0], [0.0, 8.5]])
    after = [(kept, (torch.ones(2), torch.tensor([0.0, 1.0])))]
    assert set_transformer(**layer, after=after).tolist() == [[-1.0, 2.0], [1.0, 0.0]]


SIZES = {
    "none": [],
    "one row": [1],
    "empty sets": [0, 3, 0, 0, 5, 0],
    "short": [5, 36, 1, 17, 36, 2, 9],
    "many": [36, 23, 31, 8] * 30,
    "long": [200, 1, 256],
    "too long for a block": [300, 7],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    ("width", "heads", "hidden"),
    [(2, 1, 5), (24, 3, 40), (64, 8, 128), (70, 5, 100), (192, 8, 384)],
)
@pytest.mark.parametrize(("further", "activation"), [(0, "relu"), (2, "gelu")])
def test_equals_reference(sizes, width, heads, hidden, further, activation):
    layer = samples(sizes, width, heads, hidden, further)
    # Two numbers may be nearly equal, and their difference then decides: a large epsilon.
    settings = {"activation": activation, "epsilon": 0.1}
    found = set_transformer(**layer, **settings)
    assert found.is_contiguous()
    wanted = reference(**changed(layer, torch.Tensor.double), **settings)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=3e-5)


def test_long_sets_go_through_the_single_operators_and_need_not():
    layer = samples(SIZES["too long for a block"], 64, 8, 100)
    assert norms_of(lambda: set_transformer(**layer)) == 3
    assert norms_of(lambda: set_transformer(**samples([256]))) == 0
    found = native.set_transformer(*native_arguments(layer))
    torch.testing.assert_close(found, set_transformer(**layer), rtol=1e-5, atol=3e-5)


def test_float64_is_as_exact():
    layer = samples(SIZES["short"], dtype=torch.float64)
    torch.testing.assert_close(set_transformer(**layer), reference(**layer), rtol=1e-12, atol=1e-12)


def test_every_row_may_have_its_own_position():
    layer = samples(SIZES["short"])
    with_index = set_transformer(**layer)
    own = {**layer, "position": layer["position"][layer["index"]], "index": None}
    assert norms_of(lambda: set_transformer(**own)) == 3
    torch.testing.assert_close(set_transformer(**own), with_index, rtol=1e-5, atol=2e-5)


def test_a_large_mean_costs_no_digits():
    layer = samples(SIZES["short"])
    layer["after"] = [(kept + 1000.0, norm) for kept, norm in layer["after"]]
    wanted = reference(**changed(layer, torch.Tensor.double))
    torch.testing.assert_close(set_transformer(**layer).double(), wanted, rtol=1e-3, atol=1e-3)


def test_a_number_that_is_none_stays_in_its_set():
    layer = samples(SIZES["short"])
    member = layer["order"][5:41]  # the second set
    others = torch.ones(len(layer["rows"]), dtype=torch.bool)
    others[member] = False
    layer["rows"][member[7], 3] = float("nan")
    found = set_transformer(**layer)
    assert found[member].isnan().all()
    assert not found[others].isnan().any()


def test_sets_depend_on_neither_other_sets_nor_threads():
    layer = samples(SIZES["many"], 64, 8, 100)
    whole = set_transformer(**layer)
    for first, last in ((0, 1), (1, 4), (3, 50)):
        begin, end = layer["offsets"][first], layer["offsets"][last]
        members = layer["order"][begin:end]
        part = {
            **layer,
            "rows": layer["rows"][members],
            "index": layer["index"][members],
            "order": torch.arange(len(members)),
            "offsets": layer["offsets"][first : last + 1] - begin,
            "after": [(kept[members], norm) for kept, norm in layer["after"]],
        }
        assert torch.equal(set_transformer(**part), whole[members])
    for count in (1, 2, 5):
        with threads(count):
            assert torch.equal(set_transformer(**layer), whole)


def test_layouts_and_inputs_that_stay():
    layer = samples(SIZES["short"])
    wanted = set_transformer(**layer)

    def spread(tensor):
        return tensor.repeat_interleave(2, -1)[..., ::2]

    def turned(tensor):
        return tensor.t().contiguous().t() if tensor.dim() == 2 else tensor

    for change in (spread, turned):
        strided = changed(layer, change)
        strided |= {name: spread(strided[name]) for name in ("index", "order", "offsets")}
        before = changed(strided, torch.clone)
        assert torch.equal(set_transformer(**strided), wanted)
        kept = []
        changed(strided, kept.append)
        copies = []
        changed(before, copies.append)
        assert all(map(torch.equal, kept, copies))


def test_gradients_and_other_dtypes_go_through_the_single_operators():
    layer = samples(SIZES["short"])
    assert norms_of(lambda: set_transformer(**layer)) == 0
    assert norms_of(lambda: set_transformer(**changed(layer, torch.Tensor.bfloat16))) == 3
    exact = changed(layer, torch.Tensor.double)
    leaves = [layer["rows"].requires_grad_(), layer["position"].requires_grad_()]
    exact_leaves = [exact["rows"].requires_grad_(), exact["position"].requires_grad_()]
    assert norms_of(lambda: set_transformer(**layer)) == 3
    found = torch.autograd.grad(set_transformer(**layer).square().sum(), leaves)
    wanted = torch.autograd.grad(reference(**exact).square().sum(), exact_leaves)
    for ours, right in zip(found, wanted, strict=True):
        assert (ours.double() - right).norm() <= 1e-4 * right.norm()
    with torch.no_grad():
        assert norms_of(lambda: set_transformer(**layer)) == 0
    with pytest.raises(RuntimeError, match="gradient goes through the single operators"):
        native.set_transformer(*native_arguments(layer)).sum().backward()


def test_both_paths_give_the_same():
    layer = samples(SIZES["many"], 64, 8, 100, 2)
    with torch.no_grad():
        alone = set_transformer(**layer)
    layer["rows"].requires_grad_()
    torch.testing.assert_close(set_transformer(**layer).detach(), alone, rtol=1e-5, atol=3e-5)


def test_compiles_and_exports_as_plain_operators():
    layer = samples([30, 20])
    rows = layer.pop("rows")

    class Module(torch.nn.Module):
        def forward(self, rows):
            return set_transformer(rows=rows, **layer)

    module = Module()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(rows), module(rows), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        graph = str(torch.export.export(module, (rows,)).graph)
    assert "aten.layer_norm" in graph
    assert "perception3d.set_transformer" not in graph


@pytest.mark.parametrize("further", [0, 2])
def test_opcheck(further):
    torch.library.opcheck(
        native.set_transformer, native_arguments(samples([5, 3], further=further))
    )


def test_misuse():
    layer = samples([5, 3])
    qkv, out, first, second = layer["maps"]
    norm, (kept, own_norm) = layer["norms"][0], layer["after"][0]
    short = (norm[0][:3], norm[1])
    for broken, error, message in [
        ({"rows": layer["rows"][:, 1:]}, ValueError, r"set_transformer: weight must be .*23"),
        ({"rows": layer["rows"][1:]}, ValueError, r"index must be \(7,\)"),
        ({"position": layer["position"][:, 1:]}, ValueError, "position must be"),
        ({"position": layer["position"].double()}, TypeError, "float64"),
        (
            {"index": layer["index"].int()},
            TypeError,
            r"index must be \(8,\) int64, got \(8,\) int32",
        ),
        ({"index": None}, ValueError, r"position must be \(8, 24\)"),
        ({"order": layer["order"][1:]}, ValueError, r"order must be \(8,\)"),
        ({"offsets": layer["offsets"].int()}, TypeError, "offsets must be .* int64, got .* int32"),
        ({"offsets": layer["offsets"][:0]}, ValueError, r"offsets must be \(sets \+ 1,\)"),
        ({"heads": 5}, ValueError, "heads must divide the 24 channels of rows, got 5"),
        ({"heads": 0}, ValueError, "heads must divide the 24 channels of rows, got 0"),
        ({"maps": (out, out, first, second)}, ValueError, r"weight of qkv must be \(72, 24\)"),
        ({"maps": (qkv, first, first, second)}, ValueError, "weight of out must be"),
        ({"maps": (qkv, out, second, second)}, ValueError, "weight of first must be"),
        ({"maps": (qkv, out, first, first)}, ValueError, "weight of second must be"),
        ({"norms": (norm, short)}, ValueError, "weight of a norm must be"),
        ({"after": [(kept, short)]}, ValueError, "weight of a norm must be"),
        ({"after": [(kept[:-1], own_norm)]}, ValueError, "kept must be"),
        ({"activation": "tanh"}, ValueError, r"one of \['gelu', 'relu'\], got 'tanh'"),
    ]:
        for needs_gradient in (False, True):  # both paths
            arguments = {**layer, **broken}
            arguments["rows"] = arguments["rows"].detach().requires_grad_(needs_gradient)
            with pytest.raises(error, match=message):
                set_transformer(**arguments)
    with pytest.raises(TypeError, match="rows must be .*, got list"):
        set_transformer(**{**layer, "rows": [[1.0]]})


def test_numbers_that_lead_outside_are_named():
    layer = samples([5, 3])
    for broken, message in [
        ({"index": torch.full((8,), 6)}, r"index must lie in 0..5, got 6 in row 0"),
        ({"index": torch.full((8,), -1)}, r"index must lie in 0..5, got -1 in row 0"),
        ({"order": torch.zeros(8, dtype=torch.int64)}, "order must be a permutation of 0..7"),
        ({"offsets": torch.tensor([0, 5, 9])}, "offsets must run from 0 to 8, got 0 to 9"),
        ({"offsets": torch.tensor([0, 9, 8])}, "offsets must ascend, got 9 before 8"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            set_transformer(**{**layer, **broken})


def test_misuse_of_the_native_operator():
    arguments = native_arguments(samples([5, 3]))
    for place, broken, message in [
        (5, 5, "the width of rows must be a multiple of heads, got 24 and 5"),
        (6, arguments[6][:3], "there must be four maps"),
        (6, arguments[6][:3] + arguments[6][1:2], "weight must have size 40"),
        (8, 7, "activation must be 0, 1 or 2, got 7"),
        (9, [], "there must be two norms, and one for all further kept rows"),
        (9, [arguments[9][0][:-1]], "kept must have size 8"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            native.set_transformer(*arguments[:place], broken, *arguments[place + 1 :])
