"""The causal convolution along sequences and its gradients."""

import itertools

import numpy as np
import pytest
import torch
from scan_samples import assert_near, conv_case, conv_results, offsets_of
from torch.autograd import gradcheck
from torch.nn import functional as F
from voxel_samples import threads

from perception3d.ops import causal_conv1d
from perception3d.ops.reference.causal_conv1d import causal_conv1d as reference

native = torch.ops.perception3d
WALKS = [{}, {"order": True}, {"reverse": True}, {"order": True, "reverse": True}]


@pytest.mark.parametrize("conv", [causal_conv1d, reference])
def test_by_hand(conv):
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    weight, bias = torch.tensor([[100.0, 10.0, 1.0]]), torch.tensor([0.5])
    offsets = torch.tensor([0, 3, 3, 5])
    assert conv(x, weight, bias, offsets).flatten().tolist() == [1.5, 12.5, 123.5, 4.5, 45.5]
    back = conv(x, weight, None, offsets, reverse=True)
    assert back.flatten().tolist() == [321.0, 32.0, 3.0, 54.0, 5.0]
    order = torch.tensor([4, 0, 2, 1, 3])  # sequences 5, 1, 3 and 2, 4
    moved = conv(x, weight, None, offsets, order=order)
    assert moved.flatten().tolist() == [51.0, 2.0, 513.0, 24.0, 5.0]
    tiny = conv(x / 100, weight, None, offsets, activation="silu")
    torch.testing.assert_close(tiny[2], F.silu(torch.tensor([1.23])))


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize(
    ("lengths", "channels", "taps"),
    [
        ((1,), 3, 4),
        ((5, 0, 130, 1), 40, 4),
        ((64, 65, 63), 16, 3),
        ((2, 1, 3), 70, 9),
        ((200,), 5, 1),
        ((66,), 32, 2),
        ((70,), 8, 80),
    ],
)
def test_equals_reference(lengths, channels, taps, activation, dtype, tolerance, walk):
    tensors, offsets, named = conv_case(lengths, channels, taps, dtype=dtype, **walk)
    named["activation"] = activation
    if taps == 3:
        tensors[2] = None
    ours = conv_results(tensors, offsets, named, causal_conv1d)
    double = [None if tensor is None else tensor.double() for tensor in tensors]
    assert_near(ours, conv_results(double, offsets, named, reference), tolerance)


@pytest.mark.parametrize("length", [4097, pytest.param(1_000_003, marks=pytest.mark.slow)])
def test_equals_torch(length):
    tensors, offsets, named = conv_case((length,), 6, 4)
    x, weight, bias = (tensor.double() for tensor in tensors)
    padded = F.pad(x.T[None], (3, 0))
    wanted = F.silu(F.conv1d(padded, weight[:, None], bias, groups=6))[0].T
    ours = causal_conv1d(*tensors, offsets, **named)
    assert_near([ours], [wanted], 1e-6)


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
def test_half_precision_is_rounded_once(dtype, tolerance, walk):
    case = conv_case((90, 64), 24, 4, dtype=dtype, **walk)
    ours = conv_results(*case, causal_conv1d)
    assert [tensor.dtype for tensor in ours] == [dtype, dtype, torch.float32, torch.float32]
    assert_near(ours, conv_results(*case, reference), tolerance)


@pytest.mark.parametrize("walk", WALKS)
def test_gradients_by_differences(walk):
    tensors, offsets, named = conv_case((4, 0, 3, 66), 2, 3, dtype=torch.float64, **walk)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    assert gradcheck(lambda *inputs: causal_conv1d(*inputs, offsets, **named), leaves)


@pytest.mark.parametrize("walk", WALKS)
def test_a_batch_equals_its_sequences(walk):
    """Bit for bit, at any number of threads, also beside a sequence of NaN."""
    lengths = (1700, 1, 0, 1513, 64, 130)
    tensors, offsets, named = conv_case(lengths, 50, 4, seed=3, **walk)
    with threads(3):
        batch = conv_results(tensors, offsets, named, causal_conv1d)
    with threads(1):
        again = conv_results(tensors, offsets, named, causal_conv1d)
    assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))
    x, weight, bias = tensors
    order = named.pop("order", torch.arange(sum(lengths)))
    upstream = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).reshape(x.shape).float()
    for begin, end in itertools.pairwise(offsets.tolist()):
        mine = order[begin:end]
        leaf = x[mine].requires_grad_()
        y = causal_conv1d(leaf, weight, bias, offsets_of([end - begin]), **named)
        assert torch.equal(y, batch[0][mine])
        assert torch.equal(torch.autograd.grad(y, leaf, upstream[mine])[0], batch[1][mine])
    poisoned = x.clone()
    poisoned[order[1700]] = torch.nan
    y = causal_conv1d(poisoned, weight, bias, offsets, order=order, **named)
    assert torch.equal(y.isnan().any(1).nonzero().flatten(), order[1700:1701])


def test_views_of_projections_are_read_in_place():
    wide = torch.randn(40, 72, generator=torch.Generator().manual_seed(5), requires_grad=True)
    (_, weight, bias), offsets, named = conv_case((40,), 24, 4)

    def run(conv, copy):
        y = conv(copy(wide.split(24, dim=1)[1]), weight, bias, offsets, **named)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), wide)]

    in_place = run(causal_conv1d, lambda part: part)
    for copy in (torch.clone, lambda part: part.T.clone().T):
        assert all(map(torch.equal, in_place, run(causal_conv1d, copy)))
    assert_near(in_place, run(reference, torch.clone), 1e-5)


def test_rows_beyond_two_to_the_31(tmp_path):
    """Rows of x lie 2^30 numbers apart, in a file of which nearly nothing exists."""
    stride, length = 1 << 30, 4
    whole = np.memmap(tmp_path / "x", dtype=np.int16, mode="w+", shape=(stride * 3 + 2,))
    rows = torch.from_numpy(whole).view(torch.bfloat16).as_strided((length, 2), (stride, 1))
    (x, weight, bias), offsets, named = conv_case((length,), 2, 3, dtype=torch.bfloat16)
    rows.copy_(x)
    far = conv_results([rows, weight, bias], offsets, named, causal_conv1d)
    assert torch.equal(causal_conv1d(rows, weight, bias, offsets, **named), far[0])
    near = conv_results([x, weight, bias], offsets, named, causal_conv1d)
    assert all(map(torch.equal, far, near))


@pytest.mark.parametrize(("lengths", "channels"), [((), 3), ((0,), 3), ((0, 0), 3), ((4,), 0)])
def test_nothing_to_do(lengths, channels):
    case = conv_case(lengths, channels, 4, order=True)
    wanted = conv_results(*case, reference)
    for a, b in zip(conv_results(*case, causal_conv1d), wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("walk", [WALKS[0], WALKS[3]])
def test_opcheck(walk):
    (x, weight, bias), offsets, named = conv_case((3, 70), 2, 4, **walk)
    order, reverse = named.get("order"), bool(named.get("reverse"))
    leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    torch.library.opcheck(native.causal_conv1d, (*leaves, offsets, True, order, reverse))
    arguments = (torch.randn(73, 2), x, weight, None, offsets, True, order, reverse)
    torch.library.opcheck(native.causal_conv1d_backward, arguments)


def test_no_second_derivative():
    (x, weight, bias), offsets, named = conv_case((5,), 2, 4)
    x.requires_grad_()
    y = causal_conv1d(x, weight, bias, offsets, **named)
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="causal_conv1d: there is no second derivative"):
        grad.sum().backward()


def test_compiles_whole_with_gradient():
    tensors, offsets, named = conv_case((70, 9), 4, 4, order=True, reverse=True)
    leaves = [tensor.requires_grad_() for tensor in tensors]

    def loss(*inputs):
        return causal_conv1d(*inputs, offsets, **named).square().sum()

    eager = torch.autograd.grad(loss(*leaves), leaves)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(*leaves)
    for a, b in zip(torch.autograd.grad(compiled, leaves), eager, strict=True):
        torch.testing.assert_close(a, b)


def test_errors():
    (x, weight, bias), offsets, _ = conv_case((4,), 2, 3)
    with pytest.raises(TypeError, match=r"causal_conv1d: x must be \(L, D\) float32 or .*int64"):
        causal_conv1d(x.long(), weight, bias, offsets)
    with pytest.raises(ValueError, match=r"weight must be \(2, >=1\) float32, got \(3, 3\)"):
        causal_conv1d(x, torch.zeros(3, 3), bias, offsets)
    with pytest.raises(ValueError, match=r"weight must be \(2, >=1\) float32, got \(2, 0\)"):
        causal_conv1d(x, weight[:, :0], bias, offsets)
    with pytest.raises(TypeError, match=r"weight must be .*, got \(2, 3\) float64"):
        causal_conv1d(x, weight.double(), bias, offsets)
    with pytest.raises(ValueError, match=r"bias must be \(2,\) float32, got \(1,\) float32"):
        causal_conv1d(x, weight, bias[:1], offsets)
    with pytest.raises(ValueError, match="activation must be None or 'silu', got 'relu'"):
        causal_conv1d(x, weight, bias, offsets, activation="relu")
    with pytest.raises(ValueError, match="one device"):
        causal_conv1d(x, weight.to("meta"), bias, offsets)
    with pytest.raises(ValueError, match=r"offsets must be \(S \+ 1,\) int64 with S >= 0"):
        causal_conv1d(x, weight, bias, offsets[:0])
    with pytest.raises(RuntimeError, match="offsets must run from 0 to 4, got 1 to 4"):
        causal_conv1d(x, weight, bias, torch.tensor([1, 4]))
    with pytest.raises(RuntimeError, match=r"order must be in 0\.\.3, got -1 in row 2"):
        causal_conv1d(x, weight, bias, offsets, order=torch.tensor([0, 1, -1, 3]))
    with pytest.raises(RuntimeError, match="order must hold every row once, got 0 again in row 1"):
        causal_conv1d(x, weight, bias, offsets, order=torch.tensor([0, 0, 2, 3]))
