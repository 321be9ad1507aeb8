"""The Mamba mixer in one operator: values, other paths, layouts, misuse."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch.profiler import profile
from voxel_samples import threads

from perception3d.ops import MambaParameters, NormParameters, mamba_mixer
from perception3d.ops.reference.mamba_mixer import mamba_mixer as reference

native = torch.ops.perception3d


def samples(lengths, width=12, inner=20, states=5, rank=3, taps=4, dtype=torch.float32):
    """Arguments of a mixer on sequences of these lengths; rows lie anywhere."""
    rows = sum(lengths)
    generator = torch.Generator().manual_seed(rows + width)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    mixer = MambaParameters(
        norm=normal(width),
        in_proj=normal(2 * inner, width) / width**0.5,
        conv_weight=normal(inner, taps) / taps**0.5,
        conv_bias=normal(inner) / 4,
        x_proj=normal(rank + 2 * states, inner) / inner**0.5,
        step_proj=normal(inner, rank) / rank**0.5,
        step_bias=normal(inner) - 2,
        A=-normal(inner, states).exp(),
        skip=normal(inner),
        out_proj=normal(width, inner) / inner**0.5,
    )
    return {
        "rows": normal(rows, width),
        "offsets": torch.tensor([0, *lengths]).cumsum(0),
        "mixer": mixer,
        "added": normal(rows, width),
        "order": torch.randperm(rows, generator=generator),
        "after": NormParameters(normal(width), normal(width), 0.1),
    }


def changed(value, change):
    """The same arguments with every tensor of real numbers changed."""
    if isinstance(value, dict):
        return {name: changed(part, change) for name, part in value.items()}
    if isinstance(value, MambaParameters | NormParameters):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        return type(value)(**changed(parts, change))
    is_real = isinstance(value, torch.Tensor) and value.is_floating_point()
    return change(value) if is_real else value


def native_arguments(call):
    mixer, after = call["mixer"], call["after"]
    tensors = list(mixer.tensors().values())
    return [
        call["rows"],
        call["added"],
        call["offsets"],
        call["order"],
        False,
        tensors[0],
        mixer.epsilon,
        *tensors[1:],
        after.weight,
        after.bias,
        after.epsilon,
    ]


def norms_of(call):
    """How many of torch's norms ran."""
    with profile() as record:
        call()
    return sum(event.name == "aten::rms_norm" for event in record.events())


@pytest.mark.parametrize("mix", [mamba_mixer, reference])
def test_by_hand(mix):
    """One channel all through, one state; the only tap is the step before.

    Rows +-1 stay what they are, u is silu of the row before (0 first), steps are ln 2 and A is -1:
    every state is half the last plus ln 2 u B, with B = C = u.
    """
    one = torch.ones(1)
    mixer = MambaParameters(
        norm=2 * one,
        in_proj=torch.tensor([[0.5], [1.0]]),
        conv_weight=torch.tensor([[1.0, 0.0]]),
        conv_bias=0 * one,
        x_proj=torch.tensor([[0.0], [1.0], [1.0]]),
        step_proj=torch.ones(1, 1),
        step_bias=0 * one,
        A=-torch.ones(1, 1),
        skip=0 * one,
        out_proj=torch.tensor([[10.0]]),
        epsilon=0.0,
    )
    rows = torch.tensor([[3.0], [-5.0], [7.0]])
    found = mix(rows, torch.tensor([0, 3]), mixer)
    half, log2 = torch.tensor([1.0, -1.0, 1.0]), math.log(2.0)  # norm 2, in_proj 0.5
    u = torch.nn.functional.silu(torch.tensor([0.0, 1.0, -1.0]))
    states = [0.0, log2 * u[1] ** 2, log2 * u[1] ** 2 / 2 + log2 * u[2] ** 2]
    gates = torch.nn.functional.silu(2 * half)
    wanted = 10 * torch.tensor(states) * u * gates
    torch.testing.assert_close(found.flatten(), wanted)


LENGTHS = {
    "none": [],
    "empty": [0, 0],
    "one row": [1],
    "short": [5, 0, 1, 17, 2, 3],
    "a block": [123],
    "more than a block": [124, 200, 3],
    "some blocks": [300, 1, 500],
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize(
    ("width", "inner", "states", "rank", "taps"),
    [(1, 1, 1, 1, 1), (12, 20, 5, 3, 4), (64, 128, 16, 4, 4), (70, 33, 9, 5, 7)],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_equals_reference(lengths, width, inner, states, rank, taps, reverse):
    call = samples(lengths, width, inner, states, rank, taps)
    found = mamba_mixer(**call, reverse=reverse)
    assert found.is_contiguous()
    wanted = reference(**changed(call, torch.Tensor.double), reverse=reverse)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=3e-5)


def test_added_rows_order_and_norm_may_be_missing():
    call = samples(LENGTHS["more than a block"])
    for name in ("added", "order", "after"):
        call[name] = None
        wanted = reference(**changed(call, torch.Tensor.double))
        torch.testing.assert_close(mamba_mixer(**call).double(), wanted, rtol=1e-5, atol=3e-5)


def test_float64_is_as_exact():
    call = samples(LENGTHS["more than a block"], dtype=torch.float64)
    torch.testing.assert_close(mamba_mixer(**call), reference(**call), rtol=1e-11, atol=1e-12)


def test_sequences_depend_on_neither_other_sequences_nor_threads():
    call = samples(LENGTHS["some blocks"], 64, 128, 16)
    whole = mamba_mixer(**call)
    for count in (1, 2, 5):
        with threads(count):
            for _ in range(5):
                assert torch.equal(mamba_mixer(**call), whole)
    for begin, end in call["offsets"].unfold(0, 2, 1).tolist():
        members = call["order"][begin:end]
        part = {
            **call,
            "rows": call["rows"][members],
            "added": call["added"][members],
            "order": None,
            "offsets": torch.tensor([0, end - begin]),
        }
        assert torch.equal(mamba_mixer(**part), whole[members])


def test_a_number_that_is_none_reaches_its_sequence_from_there_on():
    call = samples([200, 300, 50])
    members = call["order"][200:500]
    call["rows"][members[150], 3] = float("nan")
    reached = torch.zeros(550, dtype=torch.bool)
    reached[members[150:]] = True
    assert torch.equal(mamba_mixer(**call).isnan().any(1), reached)
    reached = torch.zeros(550, dtype=torch.bool)
    reached[members[:151]] = True
    assert torch.equal(mamba_mixer(**call, reverse=True).isnan().any(1), reached)


def test_layouts_and_inputs_that_stay():
    call = samples(LENGTHS["short"])
    wanted = mamba_mixer(**call)

    def spread(tensor):
        return tensor.repeat_interleave(2, -1)[..., ::2]

    def turned(tensor):
        return tensor.t().contiguous().t() if tensor.dim() == 2 else tensor

    for change in (spread, turned):
        strided = changed(call, change)
        strided |= {name: spread(strided[name]) for name in ("order", "offsets")}
        before = changed(strided, torch.clone)
        assert torch.equal(mamba_mixer(**strided), wanted)
        kept, copies = [], []
        changed(strided, kept.append)
        changed(before, copies.append)
        assert all(map(torch.equal, kept, copies))


def test_gradients_and_other_dtypes_go_through_the_single_operators():
    call = samples(LENGTHS["short"])
    assert norms_of(lambda: mamba_mixer(**call)) == 0
    halves = changed(call, torch.Tensor.bfloat16)
    wide = ("conv_weight", "conv_bias", "step_bias", "A", "skip")
    halves["mixer"] = replace(
        halves["mixer"], **{name: getattr(halves["mixer"], name).float() for name in wide}
    )
    assert norms_of(lambda: mamba_mixer(**halves)) == 1
    exact = changed(call, torch.Tensor.double)
    leaves = [call["rows"].requires_grad_(), call["mixer"].A.requires_grad_()]
    exact_leaves = [exact["rows"].requires_grad_(), exact["mixer"].A.requires_grad_()]
    assert norms_of(lambda: mamba_mixer(**call)) == 1
    found = torch.autograd.grad(mamba_mixer(**call).square().sum(), leaves)
    wanted = torch.autograd.grad(reference(**exact).square().sum(), exact_leaves)
    for ours, right in zip(found, wanted, strict=True):
        assert (ours.double() - right).norm() <= 1e-4 * right.norm()
    with torch.no_grad():
        assert norms_of(lambda: mamba_mixer(**call)) == 0
    with pytest.raises(RuntimeError, match="gradient goes through the single operators"):
        native.mamba_mixer(*native_arguments(call)).sum().backward()


def test_both_paths_give_the_same():
    call = samples(LENGTHS["some blocks"], 64, 128, 16)
    with torch.no_grad():
        alone = mamba_mixer(**call)
    call["rows"].requires_grad_()
    torch.testing.assert_close(mamba_mixer(**call).detach(), alone, rtol=1e-5, atol=3e-5)


def test_compiles_and_exports_as_plain_operators():
    call = samples([30, 20])
    rows = call.pop("rows")

    class Module(torch.nn.Module):
        def forward(self, rows):
            return mamba_mixer(rows, **call)

    module = Module()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(rows), module(rows), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        graph = str(torch.export.export(module, (rows,)).graph)
    assert "perception3d.selective_scan" in graph
    assert "perception3d.mamba_mixer" not in graph


def test_opcheck():
    torch.library.opcheck(native.mamba_mixer, native_arguments(samples([5, 3])))
    arguments = native_arguments(samples([5, 3]))
    arguments[1] = arguments[3] = arguments[-2] = arguments[-3] = None
    torch.library.opcheck(native.mamba_mixer, arguments)


def test_misuse():
    call = samples([5, 3])
    mixer, after = call["mixer"], call["after"]
    for broken, error, message in [
        ({"rows": call["rows"][:, 1:]}, ValueError, r"mamba_mixer: norm must be \(11,\)"),
        ({"rows": call["rows"][0]}, ValueError, r"rows must be \(L, C\)"),
        ({"offsets": call["offsets"].int()}, TypeError, "offsets must be .* int64, got .* int32"),
        ({"offsets": call["offsets"][:0]}, ValueError, r"offsets must be \(S \+ 1,\)"),
        ({"order": call["order"][1:]}, ValueError, r"order must be \(8,\)"),
        ({"added": call["added"][1:]}, ValueError, r"added must be \(8, 12\)"),
        ({"after": replace(after, bias=after.bias[1:])}, ValueError, "bias of after must be"),
        ({"after": replace(after, weight=after.weight.double())}, TypeError, "weight of after"),
        ({"mixer": replace(mixer, A=mixer.A[0])}, ValueError, r"A must be \(D, N\)"),
        ({"mixer": replace(mixer, A=mixer.A.double())}, TypeError, r"A must be \(D, N\) float32"),
        *(
            ({"mixer": replace(mixer, **{name: tensor[1:]})}, ValueError, f"{name} must be")
            for name, tensor in mixer.tensors().items()
            if name != "A"
        ),
    ]:
        for needs_gradient in (False, True):  # both paths
            arguments = {**call, **broken}
            arguments["rows"] = arguments["rows"].detach().requires_grad_(needs_gradient)
            with pytest.raises(error, match=message):
                mamba_mixer(**arguments)
    with pytest.raises(TypeError, match="rows must be .*, got list"):
        mamba_mixer(**{**call, "rows": [[1.0]]})


def test_numbers_that_lead_outside_are_named():
    call = samples([5, 3])
    for broken, message in [
        ({"order": torch.full((8,), 8)}, r"order must be in 0..7, got 8 in row 0"),
        ({"order": torch.full((8,), -1)}, r"order must be in 0..7, got -1 in row 0"),
        ({"order": torch.zeros(8, dtype=torch.int64)}, "order must hold every row once"),
        ({"offsets": torch.tensor([0, 5, 9])}, "offsets must run from 0 to 8, got 0 to 9"),
        ({"offsets": torch.tensor([0, 9, 8])}, "offsets must ascend, got 9 before 8"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            mamba_mixer(**{**call, **broken})


def test_misuse_of_the_native_operator():
    arguments = native_arguments(samples([5, 3]))
    for place, broken, message in [
        (0, arguments[0].half(), "rows must be float32 or float64, got Half"),
        (1, arguments[1][1:], "added must have size 8"),
        (8, arguments[8][:, :0], "conv_weight must have a tap"),
        (11, arguments[11][0], "step_proj must have 2 dimensions"),
        (17, None, "after_weight and after_bias go together"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            native.mamba_mixer(*arguments[:place], broken, *arguments[place + 1 :])
