"""The selective scan and its gradients."""

import itertools
import math

import numpy as np
import pytest
import torch
from peak_memory import run_for_peak
from scan_samples import (
    ScanCase,
    assert_near,
    offsets_of,
    results_and_gradients,
    scan_case,
)
from torch.autograd import gradcheck
from voxel_samples import threads

from perception3d.ops import selective_scan
from perception3d.ops.reference.selective_scan import selective_scan as reference

native = torch.ops.perception3d
WALKS = [{}, {"order": True}, {"reverse": True}, {"order": True, "reverse": True}]
FLOATS = {torch.float64: 1e-13, torch.float32: 1e-5}


@pytest.mark.parametrize("scan", [selective_scan, reference])
def test_by_hand(scan):
    """One channel, one state, a = exp(-ln 2) = 1/2: every state is half the last plus B u."""
    rows = {"u": [1.0, 2.0, 4.0, 8.0], "b": [1.0, 1.0, 3.0, 1.0], "c": [1.0, 10.0, 1.0, 2.0]}
    u, b, c = (torch.tensor(values)[:, None] for values in rows.values())
    delta, decay = torch.ones(4, 1), torch.tensor([[-math.log(2.0)]])
    offsets = torch.tensor([0, 3, 3, 4])
    y, state = scan(u, delta, decay, b, c, offsets, return_state=True)
    # h = 1, 0.5 + 2, 1.25 + 12; then a new sequence
    torch.testing.assert_close(y.flatten(), torch.tensor([1.0, 25.0, 13.25, 16.0]))
    torch.testing.assert_close(state.flatten(), torch.tensor([13.25, 0.0, 8.0]))
    # Backwards from row 2; h = 12, 6 + 2, 4 + 1.
    y, state = scan(u, delta, decay, b, c, offsets, reverse=True, return_state=True)
    torch.testing.assert_close(y.flatten(), torch.tensor([5.0, 80.0, 12.0, 16.0]))
    torch.testing.assert_close(state.flatten(), torch.tensor([5.0, 0.0, 8.0]))
    # Places are rows 3, 1, 0 | 2; h = 8, 4 + 2, 3 + 1.
    order = torch.tensor([3, 1, 0, 2])
    skip, gate = torch.tensor([0.5]), torch.zeros(4, 1)
    y = scan(u, delta, decay, b, c, offsets, order=order, skip=skip)
    torch.testing.assert_close(y.flatten(), torch.tensor([4.5, 61.0, 14.0, 20.0]))
    assert not scan(u, delta, decay, b, c, offsets, gate=gate).any()


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("lengths", "channels", "states"),
    [
        ((1,), 3, 4),
        ((5, 0, 130, 1), 40, 16),
        ((64, 65, 63), 16, 7),
        ((128,), 70, 1),
        ((97,), 5, 20),
        ((0, 0, 3), 1, 9),
    ],
)
def test_equals_reference(lengths, channels, states, plain, dtype, walk):
    case = scan_case(lengths, channels, states, dtype=dtype, plain=plain, **walk)
    ours = results_and_gradients(case, selective_scan)
    wanted = results_and_gradients(case.double(), reference)
    assert_near(ours, wanted, FLOATS[dtype])


@pytest.mark.parametrize("option", ["skip", "gate", "delta_bias", "delta_softplus"])
def test_each_option_alone(option):
    case = scan_case((70, 30), 24, 5, seed=1)
    case.named = {option: case.named[option]}
    if option != "delta_softplus":  # states must not grow
        case.tensors[1] = case.tensors[1].abs() * 0.1
        case.named = {name: value.abs() for name, value in case.named.items()}
    ours = results_and_gradients(case, selective_scan)
    assert_near(ours, results_and_gradients(case.double(), reference), 1e-5)


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
def test_half_precision_is_rounded_once(dtype, tolerance, walk):
    case = scan_case((90, 64), 24, 16, dtype=dtype, **walk)
    ours = results_and_gradients(case, selective_scan)
    assert [tensor.dtype for tensor in ours[:7]] == [
        *(dtype, torch.float32, dtype, dtype, torch.float32, dtype, dtype)
    ]
    assert_near(ours, results_and_gradients(case, reference), tolerance)
    # The states are float32 all along.
    assert_near(ours[1:2], results_and_gradients(case.double(), reference)[1:2], 1e-5)


@pytest.mark.parametrize("walk", WALKS)
def test_gradients_by_differences(walk):
    case, leaves = scan_case((4, 0, 3, 66), 2, 3, dtype=torch.float64, **walk).leaves()
    names = [name for name in case.named if name in ("skip", "gate", "delta_bias")]

    def run(*tensors):
        named = {**case.named, **dict(zip(names, tensors[5:], strict=True))}
        return selective_scan(*tensors[:5], case.offsets, **named)

    assert gradcheck(run, leaves)


def recurrence(case):
    """y and the gradient of u of one sequence, in float64, by the recurrence and its adjoint."""
    u, delta, decay, b, c = (tensor.double().numpy() for tensor in case.tensors)
    delta = np.log1p(np.exp(delta + case.named["delta_bias"].double().numpy()))
    length, states = len(u), np.empty((len(u), *decay.shape))
    state = np.zeros_like(decay)
    for t in range(length):
        state = np.exp(delta[t, :, None] * decay) * state + (delta[t] * u[t])[:, None] * b[t]
        states[t] = state
    grad = np.linspace(-1, 1, u.size).reshape(u.shape)
    skip = case.named["skip"].double().numpy()
    grad_u, carry = np.empty_like(u), np.zeros_like(decay)
    for t in reversed(range(length)):
        adjoint = grad[t, :, None] * c[t] + carry
        grad_u[t] = delta[t] * (adjoint @ b[t]) + grad[t] * skip
        carry = adjoint * np.exp(delta[t, :, None] * decay)
    y = np.einsum("tdn,tn->td", states, c) + skip * u
    return torch.from_numpy(y), torch.from_numpy(grad_u)


@pytest.mark.parametrize(
    "length", [1, 2, 63, 64, 65, 4097, pytest.param(1_000_003, marks=pytest.mark.slow)]
)
def test_long_sequences(length):
    case = scan_case((length,), 3, 2, seed=2)
    del case.named["gate"]
    case.tensors[2] = case.tensors[2] * 0.01  # a memory of hundreds of steps
    y, _, grad_u, *_ = results_and_gradients(case, selective_scan)
    assert_near([y, grad_u], recurrence(case), 1e-5)


def test_memory_has_no_room_for_all_states_of_all_steps():
    """One state per step, channel and state number would be 246 MB."""
    case = scan_case((30_000,), 128, 16, seed=2)
    _, peak = run_for_peak(lambda: case.run(selective_scan))
    assert peak < 1.5 * case.tensors[0].nbytes + 16 * 2**20
    case, leaves = case.leaves()
    upstream = torch.ones_like(case.tensors[0])
    _, peak = run_for_peak(lambda: torch.autograd.grad(case.run(selective_scan), leaves, upstream))
    # The result, three gradients of its size, smaller ones, the states between chunks.
    assert peak < 5 * case.tensors[0].nbytes + 16 * 2**20
    _, seen = run_for_peak(lambda: torch.ones(30_000, 128, 16))
    assert seen > 200 * 2**20


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("channels", [8, 50])
def test_a_batch_equals_its_sequences(walk, channels):
    """Bit for bit, at any number of threads, whatever the other sequences hold."""
    lengths = (700, 1, 0, 513, 64, 130)
    case = scan_case(lengths, channels, 6, seed=3, **walk)
    case.tensors[1][710:720] = 300.0  # of sequence 3: exp(delta A) leaves the normal numbers
    rows = torch.arange(sum(lengths))
    order = case.named.get("order", rows)
    with threads(3):
        y, state, *gradients = results_and_gradients(case, selective_scan)
    with threads(1):
        again = results_and_gradients(case, selective_scan)
    for a, b in zip((y, state, *gradients), again, strict=True):
        assert torch.equal(a, b)
    upstream = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape).float()
    for s, (begin, end) in enumerate(itertools.pairwise(case.offsets.tolist())):
        mine = order[begin:end]
        named = {k: v for k, v in case.named.items() if k != "order"}
        named["gate"] = named["gate"][mine]
        u, delta, decay, b, c = case.tensors
        alone = ScanCase([u[mine], delta[mine], decay, b[mine], c[mine]], offsets_of([end - begin]))
        alone.named = named
        alone, leaves = alone.leaves()
        result, last = alone.run(selective_scan, return_state=True)
        assert torch.equal(result, y[mine])
        assert torch.equal(last[0], state[s])
        ours = torch.autograd.grad(result, leaves, upstream[mine])
        for number in (0, 1, 3, 4, 6):  # u, delta, B, C, gate
            assert torch.equal(ours[number], gradients[number][mine]), number


def test_a_poisoned_sequence_spoils_no_other():
    case = scan_case((70, 70, 70), 20, 4, seed=4)
    wanted = results_and_gradients(case, selective_scan)
    case.tensors[0][70:140] = torch.nan
    ours = results_and_gradients(case, selective_scan)
    others = torch.cat([torch.arange(70), torch.arange(140, 210)])
    for number in (0, 2, 3, 5, 6, 8):  # y and the gradients of rows
        assert torch.equal(ours[number][others], wanted[number][others])
    assert ours[0][70:140].isnan().all()


def test_extreme_numbers():
    """No state left, states that grow without bound, and NaN, as in torch."""
    u = torch.ones(4, 1)
    delta = torch.tensor([[1.0], [1e4], [1.0], [1.0]])
    one = torch.ones(4, 2)
    decay = torch.tensor([[-1.0, -300.0]])
    offsets = torch.tensor([0, 4])
    y = selective_scan(u, delta, decay, one, one, offsets)
    torch.testing.assert_close(y, reference(u, delta, decay, one, one, offsets))
    growing = torch.tensor([[60.0, -1.0]])
    y, state = selective_scan(u, delta, growing, one, one, offsets, return_state=True)
    assert y[0].isfinite()
    assert y[1:].isinf().all()
    assert state[0, 0].isinf().tolist() == [True, False]
    for spoilt in range(5):
        tensors = [u.clone(), delta.clone(), decay.clone(), one.clone(), one.clone()]
        tensors[spoilt][(0, 1) if spoilt == 2 else (2, 0)] = torch.nan
        y = selective_scan(*tensors, offsets, delta_softplus=True)
        wanted = reference(*tensors, offsets, delta_softplus=True)
        assert torch.equal(y.isnan(), wanted.isnan()), spoilt
        assert wanted.isnan().any()


def test_softplus_of_any_size():
    raw = torch.tensor([-200.0, -87.0, -30.0, -3.0, 0.0, 3.0, 19.9, 20.1, 88.0, 3e4])[:, None]
    u, b = torch.ones(10, 1), torch.ones(10, 1)
    offsets = torch.arange(11)  # every token on its own: y = delta
    raw.requires_grad_()
    y = selective_scan(u, raw, -torch.ones(1, 1), b, b, offsets, delta_softplus=True)
    wanted = torch.nn.functional.softplus(raw)
    # log2(e) in float32 costs |x| roundings; below the normal numbers the smallest one comes back.
    torch.testing.assert_close(y, wanted, rtol=2e-6, atol=2e-38)
    torch.testing.assert_close(y[3:], wanted[3:], rtol=2.5e-7, atol=0)
    (ours,) = torch.autograd.grad(y.sum(), raw)
    (theirs,) = torch.autograd.grad(wanted.sum(), raw)
    torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=2e-38)


def test_views_of_projections_are_read_in_place():
    """What the projections of a Mamba block give: column ranges of wider tensors."""
    generator = torch.Generator().manual_seed(5)
    wide = torch.randn(40, 3 * 24, generator=generator, requires_grad=True)
    narrow = torch.randn(40, 2 * 8 + 3, generator=generator, requires_grad=True)
    decay = -torch.rand(24, 8, generator=generator)

    def run(scan, copy):
        u, delta, gate = (copy(part) for part in wide.split(24, dim=1))
        _, b, c = (copy(part) for part in narrow.split([3, 8, 8], dim=1))
        y = scan(u, delta, decay, b, c, torch.tensor([0, 40]), gate=gate, delta_softplus=True)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), (wide, narrow))]

    in_place = run(selective_scan, lambda part: part)
    for other in (run(selective_scan, torch.clone), run(selective_scan, lambda t: t.T.clone().T)):
        for a, b in zip(in_place, other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert_near(in_place, run(reference, torch.clone), 1e-5)


def test_rows_beyond_two_to_the_31(tmp_path):
    """Rows of u lie 2^30 numbers apart, in a file of which nearly nothing exists."""
    stride, length = 1 << 30, 4
    whole = np.memmap(tmp_path / "u", dtype=np.int16, mode="w+", shape=(stride * 3 + 2,))
    rows = torch.from_numpy(whole).view(torch.bfloat16).as_strided((length, 2), (stride, 1))
    rows.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]))
    case = scan_case((length,), 2, 3, dtype=torch.bfloat16)
    case.tensors[0] = rows
    case.tensors[0] = rows.clone()
    wanted = case.run(selective_scan)
    case.tensors[0] = rows
    assert torch.equal(case.run(selective_scan), wanted)


@pytest.mark.parametrize(
    ("lengths", "channels", "states"),
    [((), 3, 2), ((0,), 3, 2), ((0, 0), 3, 2), ((4,), 0, 2), ((4, 0), 3, 0)],
)
def test_nothing_to_do(lengths, channels, states):
    case = scan_case(lengths, channels, states, order=True)
    ours = results_and_gradients(case, selective_scan)
    wanted = results_and_gradients(case, reference)
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("plain", "walk"), [(False, WALKS[3]), (True, WALKS[0])])
def test_opcheck(plain, walk):
    case, _ = scan_case((3, 70), 2, 3, plain=plain, **walk).leaves()
    options = [case.named.get(name) for name in ("skip", "gate", "delta_bias")]
    softplus, reverse = not plain, bool(walk.get("reverse"))
    inputs = (*case.tensors, case.offsets, *options, softplus, case.named.get("order"), reverse)
    torch.library.opcheck(native.selective_scan, (*inputs, True, True))
    checkpoints = native.selective_scan(*inputs, True, False)[1]
    detached = [t.detach() if isinstance(t, torch.Tensor) else t for t in inputs]
    grad = torch.randn(73, 2)
    torch.library.opcheck(native.selective_scan_backward, (grad, *detached, checkpoints))


def test_no_second_derivative():
    case, leaves = scan_case((5,), 2, 2).leaves()
    (grad,) = torch.autograd.grad(case.run(selective_scan).sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="selective_scan: there is no second derivative"):
        grad.sum().backward()


def test_compiles_whole_with_gradient():
    case, leaves = scan_case((70, 9), 4, 3, order=True, reverse=True).leaves()
    eager = torch.autograd.grad(case.run(selective_scan).square().sum(), leaves)

    def loss(*tensors):
        named = {
            **case.named,
            **dict(zip(("skip", "gate", "delta_bias"), tensors[5:], strict=True)),
        }
        return selective_scan(*tensors[:5], case.offsets, **named).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(*leaves)
    for a, b in zip(torch.autograd.grad(compiled, leaves), eager, strict=True):
        torch.testing.assert_close(a, b)


def test_errors():
    case = scan_case((4,), 2, 3, order=True)
    u, delta, decay, b, c = case.tensors
    offsets, order = case.offsets, case.named["order"]
    with pytest.raises(TypeError, match=r"selective_scan: u must be \(L, D\) float32 or .*int64"):
        selective_scan(u.long(), delta, decay, b, c, offsets)
    with pytest.raises(ValueError, match=r"delta must be \(4, 2\) float32, got \(3, 2\) float32"):
        selective_scan(u, delta[:3], decay, b, c, offsets)
    with pytest.raises(TypeError, match=r"A must be \(2, N\) float32, got \(2, 3\) float64"):
        selective_scan(u, delta, decay.double(), b, c, offsets)
    with pytest.raises(TypeError, match=r"B must be \(4, 3\) bfloat16, got \(4, 3\) float32"):
        selective_scan(u.bfloat16(), delta.bfloat16(), decay, b, c, offsets)
    with pytest.raises(ValueError, match=r"gate must be \(4, 2\) float32"):
        selective_scan(u, delta, decay, b, c, offsets, gate=u[:, :1])
    with pytest.raises(ValueError, match=r"skip must be \(2,\) float32"):
        selective_scan(u, delta, decay, b, c, offsets, skip=torch.zeros(3))
    with pytest.raises(TypeError, match=r"offsets must be \(S \+ 1,\) int64"):
        selective_scan(u, delta, decay, b, c, offsets.int())
    with pytest.raises(ValueError, match=r"offsets must be \(S \+ 1,\) int64 with S >= 0"):
        selective_scan(u, delta, decay, b, c, offsets[:0])
    with pytest.raises(ValueError, match="one device"):
        selective_scan(u, delta, decay.to("meta"), b, c, offsets)
    with pytest.raises(RuntimeError, match="offsets must run from 0 to 4, got 0 to 3"):
        selective_scan(u, delta, decay, b, c, torch.tensor([0, 3]))
    with pytest.raises(RuntimeError, match="offsets must ascend, got 5 before 4"):
        selective_scan(u, delta, decay, b, c, torch.tensor([0, 5, 4]))
    with pytest.raises(RuntimeError, match=r"order must be in 0\.\.3, got 4 in row 0"):
        selective_scan(u, delta, decay, b, c, offsets, order=torch.tensor([4, 1, 2, 3]))
    with pytest.raises(RuntimeError, match="order must hold every row once, got 1 again in row 3"):
        selective_scan(u, delta, decay, b, c, offsets, order=torch.tensor([0, 1, 2, 1]))
    with pytest.raises(ValueError, match=r"order must be \(4,\) int64"):
        selective_scan(u, delta, decay, b, c, offsets, order=order[:2])
