"""The CUDA kernels of selective_scan, forward and backward."""

import pytest
import torch
from scan_samples import ScanCase, assert_near, scan_case
from simt_library import schedule

from perception3d.ops.reference.selective_scan import selective_scan as reference

WALKS = [{}, {"order": True}, {"reverse": True}, {"order": True, "reverse": True}]
ROWS = {"u": 0, "delta": 1, "B": 3, "C": 4}


def inputs_of(case):
    """Positional arguments of the native operator, up to `reverse`."""
    named = case.named
    options = [named.get(name) for name in ("skip", "gate", "delta_bias")]
    softplus, reverse = bool(named.get("delta_softplus")), bool(named.get("reverse"))
    return (*case.tensors, case.offsets, *options, softplus, named.get("order"), reverse)


def weights_of(y):
    return torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.dtype)


def run(kernels, case):
    """[y, last state, gradients], in the order of results_and_gradients of scan_samples."""
    inputs = inputs_of(case)
    y, checkpoints, state = kernels.selective_scan(*inputs, True, True)
    lean, nothing, none = kernels.selective_scan(*inputs, False, False)
    torch.testing.assert_close(lean, y, rtol=0, atol=0, equal_nan=True)
    assert nothing.shape[0] == none.shape[0] == 0
    grads = kernels.selective_scan_backward(weights_of(y), *inputs, checkpoints)
    u, delta, decay, b, c, skip, gate, bias = grads
    optional = {"skip": skip, "gate": gate, "delta_bias": bias}
    return [y, state, u, delta, decay, b, c] + [
        optional[name] for name in case.named if name in optional
    ]


def wanted_of(case):
    """The same of the reference, in float64."""
    double, leaves = case.double().leaves()
    y, state = double.run(reference, return_state=True)
    loss = (y * weights_of(y)).sum()
    return [y.detach(), state, *torch.autograd.grad(loss, leaves, materialize_grads=True)]


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize(
    ("lengths", "channels", "states"),
    [
        ((1,), 3, 4),  # one thread a channel
        ((5, 0, 80, 1), 70, 16),  # two threads, two blocks of channels
        ((64, 65, 63), 5, 7),
        ((130,), 9, 20),  # four threads
        ((3, 70), 3, 50),  # eight
    ],
)
def test_equals_reference(kernels, lengths, channels, states, walk):
    case = scan_case(lengths, channels, states, **walk)
    assert_near(run(kernels, case), wanted_of(case), 1e-5)


@pytest.mark.parametrize("states", [100, 200])
def test_many_states(kernels, states):
    case = scan_case((10, 60), 5, states, order=True)
    assert_near(run(kernels, case), wanted_of(case), 1e-5)


def test_many_chunks(kernels):
    """More chunks than the carry has segments; states that live for hundreds of steps."""
    case = scan_case((700, 0, 500), 2, 3, seed=1)
    case.tensors[2] = case.tensors[2] * 0.01
    assert_near(run(kernels, case), wanted_of(case), 1e-5)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
def test_half_precision(kernels, dtype, tolerance, plain):
    case = scan_case((90, 30), 9, 16, dtype=dtype, plain=plain)
    ours, wanted = run(kernels, case), wanted_of(case)
    assert ours[0].dtype == ours[2].dtype == ours[5].dtype == dtype
    assert ours[1].dtype == ours[4].dtype == torch.float32
    assert_near(ours, wanted, tolerance)


@pytest.mark.parametrize("option", ["skip", "gate", "delta_bias", "delta_softplus"])
def test_each_option_alone(kernels, option):
    case = scan_case((30, 40), 5, 5, seed=1)
    case.named = {option: case.named[option]}
    if option != "delta_softplus":
        case.tensors[1] = case.tensors[1].abs() * 0.1
        case.named = {name: value.abs() for name, value in case.named.items()}
    assert_near(run(kernels, case), wanted_of(case), 1e-5)


@pytest.mark.parametrize(
    ("lengths", "channels", "states"),
    [((), 3, 2), ((0,), 3, 2), ((0, 0), 3, 2), ((4,), 0, 2), ((4, 0), 3, 0)],
)
def test_nothing_to_do(kernels, lengths, channels, states):
    case = scan_case(lengths, channels, states, order=True)
    for ours, wanted in zip(run(kernels, case), wanted_of(case), strict=True):
        torch.testing.assert_close(ours, wanted.to(ours.dtype))


def test_views_are_read_in_place(kernels):
    case = scan_case((70,), 12, 5)
    wanted = run(kernels, case)
    u, delta, decay, b, c = case.tensors
    wide = torch.cat([u, delta, case.named["gate"]], dim=1)
    narrow = torch.cat([b, c], dim=1)
    views = ScanCase(
        [wide[:, :12], wide[:, 12:24], decay, narrow[:, :5], narrow[:, 5:]], case.offsets
    )
    views.named = {**case.named, "gate": wide[:, 24:]}
    for ours, theirs in zip(run(kernels, views), wanted, strict=True):
        assert torch.equal(ours, theirs)


def test_a_poisoned_sequence_spoils_no_other(kernels):
    case = scan_case((70, 70, 70), 4, 4, seed=4)
    wanted = run(kernels, case)
    case.tensors[0][70:140] = torch.inf
    ours = run(kernels, case)
    others = torch.cat([torch.arange(70), torch.arange(140, 210)])
    for number in (0, 2, 3, 5, 6, 8):  # y and the gradients of rows
        assert torch.equal(ours[number][others], wanted[number][others])
    assert not ours[0][70:140].isfinite().any()


def test_order_of_threads_does_not_matter(interpreter):
    case = scan_case((50, 90), 70, 16, order=True)
    runs = []
    for number in (0, 1, 2):
        with schedule(number):
            runs.append(run(interpreter, case))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_refusals(interpreter):
    case = scan_case((4,), 2, 3)
    with pytest.raises(RuntimeError, match="float64 is computed on the CPU only"):
        interpreter.selective_scan(*inputs_of(case.double()), False, False)
    many = scan_case((4,), 2, 257)
    with pytest.raises(RuntimeError, match="A must have at most 256 states on this device"):
        interpreter.selective_scan(*inputs_of(many), False, False)
    case.named["order"] = torch.tensor([0, 1, 2, 4])
    with pytest.raises(RuntimeError, match=r"selective_scan: order must be in 0\.\.3, got 4"):
        interpreter.selective_scan(*inputs_of(case), False, False)
