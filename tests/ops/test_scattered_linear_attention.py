"""Linear attention inside windows of any length, and its gradients."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peak_memory import run_for_peak
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from voxel_samples import threads

from perception3d.ops import scattered_linear_attention, scattered_linear_attention_qkv
from perception3d.ops.reference.scattered_linear_attention import (
    scattered_linear_attention as reference,
)
from perception3d.ops.reference.scattered_linear_attention import (
    scattered_linear_attention_qkv as reference_qkv,
)

native = torch.ops.perception3d
# Around the sizes of blocks (64 rows) and of work items (512 rows), empty ones among them.
LENGTHS = (0, 1, 3, 63, 64, 65, 0, 511, 513, 1, 1100, 130, 0)
WIDTHS = [(4, 32, 32), (1, 1, 1), (2, 24, 40), (1, 5, 7), (3, 64, 16), (2, 8, 17), (1, 80, 48)]


def offsets_of(lengths):
    return torch.tensor([0, *lengths]).cumsum(0)


def random_inputs(lengths, heads, width, value_width, *, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    rows = sum(lengths)
    widths = (width, width, value_width)
    return [torch.randn(rows, heads, w, generator=generator).to(dtype) for w in widths]


def leaves(tensors, dtype=None):
    return [tensor.detach().to(dtype or tensor.dtype).requires_grad_() for tensor in tensors]


def gradients(attend, inputs, grad, offsets, **options):
    """Result and gradients of every input."""
    result = attend(*inputs, offsets, **options)
    return [result, *torch.autograd.grad(result, inputs, grad.to(result.dtype))]


def assert_near(got, wanted, tolerance):
    """Largest error relative to the largest value."""
    assert got.shape == wanted.shape
    if wanted.numel():
        scale = max(wanted.abs().max().item(), 1e-3)
        assert (got.double() - wanted.double()).abs().max().item() <= tolerance * scale


@pytest.mark.parametrize("attend", [scattered_linear_attention, reference])
def test_by_hand(attend):
    query = torch.tensor([[1.0, -1.0], [2.0, 1.0], [-3.0, 0.0]])[:, None]
    key = torch.tensor([[1.0, 0.0], [3.0, -2.0], [5.0, 5.0]])[:, None]
    value = torch.tensor([[10.0], [20.0], [7.0]])[:, None]
    # Window of rows 0 and 1: sum k v^T = (70, 0), sum k = (4, 0).
    result = attend(query, key, value, torch.tensor([0, 2, 3]), epsilon=1.0)
    torch.testing.assert_close(result[:, 0, 0], torch.tensor([70 / 5, 140 / 9, 0.0]))
    result = attend(
        query, key, value, torch.tensor([0, 1, 3]), order=torch.tensor([2, 1, 0]), epsilon=1.0
    )
    # Window of rows 1 and 0 as before; row 2 is alone and its query is nowhere positive.
    torch.testing.assert_close(result[:, 0, 0], torch.tensor([70 / 5, 140 / 9, 0.0]))


@pytest.mark.parametrize("attend", [scattered_linear_attention, reference])
def test_gradient_by_hand(attend):
    """One row: y = q k v / (q k + 1) with q = 2, k = 3, v = 5, so z = 6."""
    inputs = [torch.full((1, 1, 1), number, requires_grad=True) for number in (2.0, 3.0, 5.0)]
    attend(*inputs, torch.tensor([0, 1]), epsilon=1.0).backward()
    grads = torch.cat([leaf.grad.flatten() for leaf in inputs])
    torch.testing.assert_close(grads, torch.tensor([15 / 49, 10 / 49, 6 / 7]))


@pytest.mark.parametrize(("heads", "width", "value_width"), WIDTHS)
@pytest.mark.parametrize("ordered", [False, True])
def test_equals_reference(heads, width, value_width, ordered):
    inputs = random_inputs(LENGTHS, heads, width, value_width)
    rows = sum(LENGTHS)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(1)) if ordered else None
    grad = torch.randn(rows, heads, value_width, generator=torch.Generator().manual_seed(2))
    # With a width of 1 and no epsilon the query cancels out: its gradient is rounding only.
    options = {"order": order, "epsilon": 0.5 if width == 1 else 1e-6}
    ours = gradients(
        scattered_linear_attention, leaves(inputs), grad, offsets_of(LENGTHS), **options
    )
    exact = leaves(inputs, torch.float64)
    wanted = gradients(reference, exact, grad, offsets_of(LENGTHS), **options)
    for got, want in zip(ours, wanted, strict=True):
        assert_near(got, want, 1e-5)
    double = gradients(scattered_linear_attention, exact, grad, offsets_of(LENGTHS), **options)
    for got, want in zip(double, wanted, strict=True):
        assert_near(got, want, 1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "width", "value_width"), [(4, 32, 32), (2, 5, 17)])
def test_half_precision_is_summed_in_float32(dtype, heads, width, value_width):
    inputs = random_inputs(LENGTHS, heads, width, value_width, dtype=dtype)
    grad = torch.randn(sum(LENGTHS), heads, value_width).to(dtype)
    ours = gradients(scattered_linear_attention, leaves(inputs), grad, offsets_of(LENGTHS))
    wanted = gradients(reference, leaves(inputs, torch.float64), grad, offsets_of(LENGTHS))
    for got, want in zip(ours, wanted, strict=True):
        assert got.dtype == dtype
        # Each number is rounded once, on the way out.
        allowed = torch.finfo(dtype).eps * want.abs() / 2 + 1e-5 * want.abs().max()
        assert ((got.double() - want).abs() <= allowed).all()


def test_sums_of_halves_do_not_overflow():
    ones = torch.full((3000, 1, 4), 60.0, dtype=torch.float16)
    result = scattered_linear_attention(ones, ones, ones, torch.tensor([0, 3000]))
    torch.testing.assert_close(result, ones)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("width", [20, 32])
def test_projection_equals_its_parts(dtype, width):
    generator = torch.Generator().manual_seed(3)
    qkv = torch.randn(sum(LENGTHS), 3, 2, width, generator=generator).to(dtype)
    offsets = offsets_of(LENGTHS)
    grad = torch.randn(qkv.shape[0], 2, width).to(dtype)
    whole, parts = leaves([qkv, qkv])
    ours = scattered_linear_attention_qkv(whole, offsets)
    split = scattered_linear_attention(*parts.unbind(1), offsets)
    assert torch.equal(ours, split)
    ours.backward(grad)
    split.backward(grad)
    assert torch.equal(whole.grad, parts.grad)
    assert_near(ours, reference_qkv(qkv.double(), offsets), 1e-5 if dtype.itemsize > 2 else 1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("width", [16, 24, 32, 20])  # some are read in place, others copied
@pytest.mark.parametrize("ordered", [False, True])
def test_views_of_any_place_give_the_same_numbers(dtype, width, ordered):
    rows, heads = sum(LENGTHS), 2
    generator = torch.Generator().manual_seed(10)
    order = torch.randperm(rows, generator=generator) if ordered else None
    inputs = [tensor.to(dtype) for tensor in random_inputs(LENGTHS, heads, width, width)]
    grad = torch.randn(rows, heads, width, generator=generator).to(dtype)
    apart = 2 * heads * width + 3  # rows and heads with gaps between them
    memory = torch.full((4, 1 + rows * apart), torch.nan, dtype=dtype)
    views = [
        one[1:].as_strided((rows, heads, width), (apart, width + 1, 1), one.storage_offset() + 1)
        for one in memory
    ]
    for view, tensor in zip(views, [*inputs, grad], strict=True):
        view.copy_(tensor)
    run = partial(gradients, scattered_linear_attention, offsets=offsets_of(LENGTHS), order=order)
    plain = run(leaves(inputs), grad=grad)
    strided = run([view.detach().requires_grad_() for view in views[:3]], grad=views[3])
    for a, b in zip(plain, strided, strict=True):
        assert torch.equal(a, b)


class CallLog(TorchDispatchMode):
    """Names of all operators called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name())
        return function(*args, **(kwargs or {}))


def test_views_of_one_projection_are_read_in_place():
    projection = torch.randn(70, 3 * 4 * 8 + 5)  # rows may have more columns yet
    parts = [projection[:, 32 * i + 2 : 32 * i + 34].view(70, 4, 8) for i in range(3)]
    offsets = offsets_of((30, 40))
    with CallLog() as log:
        result = scattered_linear_attention(*parts, offsets)
    assert log.names == ["perception3d::scattered_linear_attention"]
    copies = [part.contiguous() for part in parts]
    assert torch.equal(result, scattered_linear_attention(*copies, offsets))


def test_other_strides():
    """Axes in another order, gaps in the last axis, heads that share memory, expanded gradient."""
    offsets = offsets_of((5, 11))
    query = torch.randn(3, 16, 8, dtype=torch.float64).transpose(0, 1)
    key = torch.randn(16, 3, 16, dtype=torch.float64)[..., ::2]
    value = torch.randn(16, 1, 6, dtype=torch.float64).expand(16, 3, 6)
    ours, theirs = leaves([query, key, value]), leaves([query, key, value])
    for leaf, like in zip(ours, (query, key, value), strict=True):
        assert leaf.stride() == like.stride()
    result = scattered_linear_attention(*ours, offsets)
    wanted = reference(*theirs, offsets)
    torch.testing.assert_close(result, wanted)
    result.sum().backward()
    wanted.sum().backward()
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got.grad, want.grad)


def test_zero_denominator_gives_zero_and_finite_gradients():
    query, key, value = random_inputs((6, 6, 6), 2, 8, 8)
    query[:6] = -query[:6].abs()  # no query of window 0 is positive
    key[6:12] = -key[6:12].abs()  # no key of window 1 is positive
    query[13] = 0.0  # exact zeros, in a window with positive keys
    offsets = offsets_of((6, 6, 6))
    ours, theirs = leaves([query, key, value]), leaves([query, key, value])
    result = scattered_linear_attention(*ours, offsets)
    assert torch.equal(result[:12], torch.zeros(12, 2, 8))
    assert torch.equal(result[13], torch.zeros(2, 8))
    assert result[14].abs().min() > 0
    grad = torch.randn(result.shape, generator=torch.Generator().manual_seed(4))
    result.backward(grad)
    reference(*theirs, offsets).backward(grad)
    for got, want in zip(ours, theirs, strict=True):
        assert got.grad.isfinite().all()
        assert_near(got.grad, want.grad, 1e-5)
    assert torch.equal(ours[0].grad[13], torch.zeros(2, 8))  # relu'(0) = 0


@pytest.mark.parametrize("attend", ["native", "reference"])
def test_lone_rows_keep_what_cancellation_leaves(attend):
    """y = z r v with z = q k, r = 1 / (z + epsilon): dq = epsilon r^2 (v g) k, dk the same with q.

    Plain float32 arithmetic subtracts two numbers that agree in all but one part in a million.
    """
    lengths = (1, 0, 1, 1) * 30
    inputs = random_inputs(lengths, 2, 8, 12)
    dtype = torch.float32 if attend == "native" else torch.float64
    run = scattered_linear_attention if attend == "native" else reference
    leaf_query, leaf_key, leaf_value = leaves(inputs, dtype)
    grad = torch.randn(90, 2, 12, generator=torch.Generator().manual_seed(9))
    grads = gradients(run, (leaf_query, leaf_key, leaf_value), grad, offsets_of(lengths))[1:]
    query, key, value, grad = (x.double() for x in (*inputs, grad))
    z = (query.relu() * key.relu()).sum(-1, keepdim=True)
    factor = 1e-6 * (value * grad).sum(-1, keepdim=True) / (z + 1e-6) ** 2
    wanted = (
        factor * key.relu() * (query > 0),
        factor * query.relu() * (key > 0),
        z / (z + 1e-6) * grad,
    )
    for got, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-12)


def test_relu_has_no_slope_at_zero():
    inputs = random_inputs((43,), 2, 8, 8, dtype=torch.float64)
    for tensor in inputs[:2]:
        tensor[tensor.abs() < 0.5] = 0.0
    query, key, _ = ours = leaves(inputs)
    scattered_linear_attention(*ours, offsets_of((43,))).square().sum().backward()
    for leaf in (query, key):
        assert (leaf == 0).any()
        assert torch.equal(leaf.grad[leaf == 0], torch.zeros_like(leaf.grad[leaf == 0]))
        assert (leaf.grad[leaf > 0] != 0).float().mean() > 0.9


def test_nan_stays_in_its_window_and_head():
    query, key, value = random_inputs((4, 4), 2, 8, 8)
    query[1, 0, 3] = torch.nan
    key[5, 1, 2] = torch.nan
    result = scattered_linear_attention(query, key, value, offsets_of((4, 4)))
    spoilt = result.isnan().any(-1)
    wanted = reference(query, key, value, offsets_of((4, 4))).isnan().any(-1)
    assert torch.equal(spoilt, wanted)
    assert spoilt.nonzero().tolist() == [[1, 0], [4, 1], [5, 1], [6, 1], [7, 1]]


def test_the_same_on_any_number_of_threads():
    inputs = random_inputs((700, *([1] * 40), 30, 3000, 200, 5), 3, 16, 16)
    offsets = offsets_of((700, *([1] * 40), 30, 3000, 200, 5))
    grad = torch.randn(inputs[2].shape, generator=torch.Generator().manual_seed(5))
    runs = []
    for count in (1, 2, 5):
        with threads(count):
            runs.append(gradients(scattered_linear_attention, leaves(inputs), grad, offsets))
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], run, strict=True))


window_lists = st.lists(st.integers(0, 90), min_size=1, max_size=6)


@settings(max_examples=30, deadline=None)
@given(window_lists, st.integers(0, 2**31), st.integers(1, 20), st.integers(1, 20))
def test_shuffled_rows_with_order_give_the_same_numbers(lengths, seed, width, value_width):
    inputs = random_inputs(lengths, 2, width, value_width, seed=seed)
    rows, offsets = sum(lengths), offsets_of(lengths)
    shuffle = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    grad = torch.randn(rows, 2, value_width, generator=torch.Generator().manual_seed(seed))
    plain = gradients(scattered_linear_attention, leaves(inputs), grad, offsets)
    shuffled = leaves([tensor[shuffle] for tensor in inputs])
    order = shuffle.argsort()
    again = gradients(scattered_linear_attention, shuffled, grad[shuffle], offsets, order=order)
    for a, b in zip(plain, again, strict=True):
        assert torch.equal(a[shuffle], b)


@settings(max_examples=30, deadline=None)
@given(window_lists, st.integers(0, 2**31))
def test_windows_know_nothing_of_each_other(lengths, seed):
    inputs = random_inputs(lengths, 1, 9, 9, seed=seed)
    grad = torch.randn(sum(lengths), 1, 9, generator=torch.Generator().manual_seed(seed))
    together = gradients(scattered_linear_attention, leaves(inputs), grad, offsets_of(lengths))
    bounds = offsets_of(lengths).tolist()
    for begin, end in pairwise(bounds):
        alone = leaves([tensor[begin:end] for tensor in inputs])
        own = gradients(
            scattered_linear_attention, alone, grad[begin:end], offsets_of([end - begin])
        )
        for a, b in zip(together, own, strict=True):
            assert torch.equal(a[begin:end], b)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 200), st.integers(0, 2**31))
def test_order_inside_a_window_does_not_matter(rows, seed):
    inputs = random_inputs([rows], 2, 8, 12, seed=seed, dtype=torch.float64)
    shuffle = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    plain = scattered_linear_attention(*inputs, offsets_of([rows]))
    moved = scattered_linear_attention(*(x[shuffle] for x in inputs), offsets_of([rows]))
    torch.testing.assert_close(plain[shuffle], moved)


def test_memory_grows_with_rows_not_with_windows():
    """One window of 2,000 rows among 5,000 of one: D * E sums each would take 320 MiB."""
    lengths = [1] * 2500 + [2000] + [1] * 2500
    heads, width = 4, 64
    inputs = leaves(random_inputs(lengths, heads, width, width))
    offsets = offsets_of(lengths)
    grad = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(6))
    run = partial(gradients, scattered_linear_attention, inputs, grad, offsets, epsilon=1.0)
    ours, peak = run_for_peak(run)
    own = sum(tensor.nbytes for tensor in ours)
    assert peak < own + 16 * 2**20
    # Windows know nothing of each other, so 101 of them are enough to compare.
    near = slice(2450, 4550)
    exact = leaves([leaf[near] for leaf in inputs], torch.float64)
    middle = offsets_of([1] * 50 + [2000] + [1] * 50)
    wanted = gradients(reference, exact, grad[near], middle, epsilon=1.0)
    for got, want in zip(ours, wanted, strict=True):
        assert_near(got[near], want, 1e-5)


def test_only_inputs_are_kept_for_the_backward_pass():
    inputs = leaves(random_inputs((5, 60), 2, 8, 8))
    offsets = offsets_of((5, 60))
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scattered_linear_attention(*inputs, offsets)
    addresses = {tensor.data_ptr() for tensor in (*inputs, offsets)}
    assert {tensor.data_ptr() for tensor in kept} == addresses


@pytest.mark.parametrize("ordered", [False, True])
def test_gradients_by_differences(ordered):
    lengths = (3, 0, 1, 6)
    inputs = leaves(random_inputs(lengths, 2, 3, 4, dtype=torch.float64))
    for leaf in inputs[:2]:
        assert leaf.abs().min() > 1e-4  # away from the kink
    order = torch.randperm(10, generator=torch.Generator().manual_seed(7)) if ordered else None

    def run(*tensors):
        return scattered_linear_attention(*tensors, offsets_of(lengths), order=order, epsilon=0.1)

    assert gradcheck(run, inputs)
    (qkv,) = leaves([torch.stack([inputs[0], inputs[1], inputs[0]], 1)])
    assert gradcheck(
        lambda x: scattered_linear_attention_qkv(x, offsets_of(lengths), order=order, epsilon=0.1),
        qkv,
    )


def test_second_differentiation_is_refused():
    inputs = leaves(random_inputs((4,), 1, 2, 2))
    result = scattered_linear_attention(*inputs, offsets_of((4,)))
    (grad,) = torch.autograd.grad(result.square().sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 0)])
def test_no_rows(lengths):
    inputs = leaves(random_inputs(lengths, 2, 8, 5))
    result = scattered_linear_attention(*inputs, offsets_of(lengths))
    assert result.shape == (0, 2, 5)
    result.sum().backward()
    assert inputs[2].grad.shape == (0, 2, 5)
    assert scattered_linear_attention_qkv(torch.zeros(0, 3, 2, 8), offsets_of(lengths)).shape == (
        0,
        2,
        8,
    )


@pytest.mark.parametrize(("heads", "width", "value_width"), [(0, 4, 4), (2, 0, 4), (2, 4, 0)])
def test_no_numbers(heads, width, value_width):
    inputs = leaves(random_inputs((3, 2), heads, width, value_width))
    result = scattered_linear_attention(*inputs, offsets_of((3, 2)))
    assert torch.equal(result, torch.zeros(5, heads, value_width))
    result.sum().backward()
    for leaf in inputs:
        assert torch.equal(leaf.grad, torch.zeros_like(leaf))


def test_rows_further_apart_than_31_bits():
    """Two rows 2^31 numbers apart: memory that is not touched is not there."""
    apart = 2**31 + 8
    memory = torch.empty(apart + 24, dtype=torch.bfloat16)
    qkv = memory.as_strided((2, 3, 1, 8), (apart, 8, 8, 1))
    small = torch.randn(2, 3, 1, 8, generator=torch.Generator().manual_seed(8)).bfloat16()
    qkv.copy_(small)
    offsets = torch.tensor([0, 2])
    assert torch.equal(
        scattered_linear_attention_qkv(qkv, offsets), scattered_linear_attention_qkv(small, offsets)
    )


@pytest.mark.parametrize("grad", [False, True])
def test_opcheck(grad):
    query, key, value = (leaf.requires_grad_(grad) for leaf in random_inputs((3, 0, 7), 2, 8, 5))
    offsets, order = offsets_of((3, 0, 7)), torch.arange(9, -1, -1)
    forward = native.scattered_linear_attention
    torch.library.opcheck(forward, (query, key, value, offsets, order, 1e-6))
    torch.library.opcheck(forward, (query, key, value, offsets, None, 1e-6))
    qkv = torch.randn(10, 3, 2, 8, requires_grad=grad)
    torch.library.opcheck(native.scattered_linear_attention_qkv, (qkv, offsets, order, 1e-6))
    if not grad:
        torch.library.opcheck(
            native.scattered_linear_attention_backward,
            (torch.randn(10, 2, 5), query, key, value, offsets, order, 1e-6),
        )


def test_compiles_whole_with_gradient():
    offsets = offsets_of((30, 12))
    linear = torch.nn.Linear(16, 48, bias=False)

    def loss(features):
        qkv = linear(features).view(-1, 3, 2, 8)
        parts = scattered_linear_attention(*qkv.unbind(1), offsets)
        return (parts + scattered_linear_attention_qkv(qkv, offsets)).square().sum()

    plain = torch.randn(42, 16, requires_grad=True)
    loss(plain).backward()
    compiled = plain.detach().clone().requires_grad_()
    torch.compile(loss, fullgraph=True, backend="aot_eager")(compiled).backward()
    torch.testing.assert_close(compiled.grad, plain.grad)


def test_errors():
    query, key, value = random_inputs((3, 2), 2, 8, 5)
    offsets, order = offsets_of((3, 2)), torch.arange(5)

    def attend(**changes):
        arguments = {"query": query, "key": key, "value": value, "offsets": offsets, **changes}
        return scattered_linear_attention(**arguments)

    with pytest.raises(
        TypeError, match=r"query must be \(N, H, D\) float32 or .*got \(5, 2, 8\) int"
    ):
        attend(query=query.int())
    with pytest.raises(ValueError, match=r"query must be \(N, H, D\)"):
        attend(query=query[0])
    with pytest.raises(
        TypeError, match=r"key must be \(5, 2, 8\) float32, got \(5, 2, 8\) float64"
    ):
        attend(key=key.double())
    with pytest.raises(ValueError, match=r"key must be \(5, 2, 8\) float32, got \(5, 2, 7\)"):
        attend(key=key[..., 1:])
    with pytest.raises(ValueError, match=r"value must be \(5, 2, E\) float32, got \(4, 2, 5\)"):
        attend(value=value[1:])
    with pytest.raises(TypeError, match=r"offsets must be \(W \+ 1,\) int64"):
        attend(offsets=offsets.int())
    with pytest.raises(
        ValueError, match=r"offsets must be \(W \+ 1,\) int64 with W >= 0, got \(0,\)"
    ):
        attend(offsets=offsets[:0])
    with pytest.raises(ValueError, match=r"order must be \(5,\) int64, got \(4,\)"):
        attend(order=order[1:])
    with pytest.raises(ValueError, match="one device, got query on cpu, offsets on meta"):
        attend(offsets=offsets.to("meta"))
    with pytest.raises(ValueError, match="one device, got query on cpu, key on meta"):
        attend(key=key.to("meta"))
    for epsilon in (0.0, -1.0, torch.inf, torch.nan):
        with pytest.raises(ValueError, match="epsilon must be > 0 and finite, got"):
            attend(epsilon=epsilon)
    with pytest.raises(ValueError, match=r"qkv must be \(N, 3, H, D\)"):
        scattered_linear_attention_qkv(torch.zeros(5, 2, 2, 8), offsets)


def test_errors_of_contents():
    inputs = random_inputs((3, 2), 2, 8, 5)
    for bad, message in (
        ([0, 3], "offsets must run from 0 to 5, got 0 to 3"),
        ([1, 3, 5], "offsets must run from 0 to 5, got 1 to 5"),
        ([0, 7, 5], "offsets must ascend, got 7 before 5"),
    ):
        with pytest.raises(RuntimeError, match=message):
            scattered_linear_attention(*inputs, torch.tensor(bad))
    for bad, message in (
        ([0, 1, 2, 3, 5], r"order must be in 0\.\.4, got 5 in place 4"),
        ([0, -1, 2, 3, 4], r"order must be in 0\.\.4, got -1 in place 1"),
        ([0, 1, 2, 1, 4], "order must be a permutation, got 1 twice"),
    ):
        with pytest.raises(RuntimeError, match=message):
            scattered_linear_attention(*inputs, offsets_of((3, 2)), order=torch.tensor(bad))
    offsets, strange = offsets_of((3, 2)), inputs[0][..., ::2]
    with pytest.raises(RuntimeError, match="query must have stride 1 in its last dimension, got 2"):
        native.scattered_linear_attention(
            strange, inputs[0][..., :4], inputs[2], offsets, None, 1.0
        )
