"""Linear attention inside windows of any length, and its gradients."""

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from linear_attention_samples import (
    LENGTHS,
    assert_near,
    gradients,
    leaves,
    offsets_of,
    random_inputs,
)
from torch.autograd import gradcheck
from voxel_samples import threads

from perception3d.ops import scattered_linear_attention, scattered_linear_attention_qkv
from perception3d.ops.reference.scattered_linear_attention import (
    scattered_linear_attention as reference,
)

WIDTHS = [(4, 32, 32), (1, 1, 1), (2, 24, 40), (1, 5, 7), (3, 64, 16), (2, 8, 17), (1, 80, 48)]


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
@example([7, 31], 0, 1, 4)  # keys with a sum near 0: see AMPLIFIED in shadow.py
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
