"""Reductions over segments and their gradients."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from voxel_samples import threads

from perception3d.ops import segment_index, segment_reduce
from perception3d.ops.reference.segment_reduce import segment_reduce as reference

REDUCTIONS = ("sum", "mean", "max")
native = torch.ops.perception3d


def segments_of(ids, count):
    return segment_index(torch.as_tensor(ids, dtype=torch.int64), count)


@pytest.mark.parametrize("reduce_rows", [segment_reduce, reference])
@pytest.mark.parametrize(
    ("reduce", "wanted"),
    [
        ("sum", [[5.0, 7.0], [0.0, 0.0], [-3.0, -1.0]]),
        ("mean", [[2.5, 3.5], [0.0, 0.0], [-3.0, -1.0]]),
        ("max", [[4.0, 5.0], [0.0, 0.0], [-3.0, -1.0]]),
    ],
)
def test_by_hand(reduce_rows, reduce, wanted):
    values = torch.tensor([[1.0, 5.0], [-3.0, -1.0], [9.0, 9.0], [4.0, 2.0]])
    order, offsets = segments_of([0, 2, -1, 0], 3)
    assert reduce_rows(values, order, offsets, reduce).tolist() == wanted


@pytest.mark.parametrize("reduce_rows", [segment_reduce, reference])
def test_gradient_of_max_goes_to_the_first_maximum(reduce_rows):
    values = torch.tensor([[7.0], [7.0], [1.0], [7.0]], requires_grad=True)
    order, offsets = torch.tensor([3, 2, 1, 0]), torch.tensor([0, 3, 4, 4])
    reduce_rows(values, order, offsets, "max").backward(torch.tensor([[2.0], [5.0], [11.0]]))
    assert values.grad.flatten().tolist() == [5.0, 0.0, 0.0, 2.0]


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("columns", [1, 3, 4, 5, 6, 7, 8, 9, 31, 40, 72, 128])
@pytest.mark.parametrize("segments", [300, 20])  # of 17 and of 250 rows
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_reference(reduce, columns, segments, dtype):
    generator = torch.Generator().manual_seed(columns)
    ids = torch.randint(-1, segments, (5000,), generator=generator)
    order, offsets = segments_of(ids, segments + 20)
    # Few distinct values, so that maxima tie.
    values = torch.randint(-9, 9, (5000, columns), generator=generator).to(dtype) / 8
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    result = segment_reduce(ours, order, offsets, reduce)
    wanted = reference(theirs, order, offsets, reduce)
    torch.testing.assert_close(result, wanted)
    grad = torch.randn(result.shape, generator=generator, dtype=dtype)
    result.backward(grad)
    wanted.backward(grad)
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("columns", [2, 9, 75])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maximum_of_numbers_and_nans_is_the_first_nan(columns, dtype):
    generator = torch.Generator().manual_seed(columns)
    order, offsets = segments_of(torch.randint(0, 20, (3000,), generator=generator), 20)
    values = torch.randn(3000, columns, generator=generator, dtype=dtype)
    values[torch.rand(values.shape, generator=generator) < 0.01] = torch.nan
    maximum, row = native.segment_max(values, order, offsets, True)
    wanted = reference(values, order, offsets, "max")
    assert wanted.isnan().any()
    assert wanted.isfinite().any()
    torch.testing.assert_close(maximum, wanted, rtol=0, atol=0, equal_nan=True)
    for segment, (first, last) in enumerate(pairwise(offsets)):
        rows = order[first:last]
        place = values[rows].isnan().int().argmax(0)  # 0 where none is NaN
        nan = maximum[segment].isnan()
        assert torch.equal(row[segment][nan].long(), rows[place][nan])


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_one_huge_segment_is_exact_and_the_same_on_any_number_of_threads(reduce):
    generator = torch.Generator().manual_seed(0)
    rows = 60_000
    values = torch.randn(rows, 40, generator=generator) + 3.0
    ids = torch.where(torch.rand(rows, generator=generator) < 0.9, 1, 0)
    order, offsets = segments_of(ids, 3)
    wanted = reference(values.double(), order, offsets, reduce).float()
    results, grads = [], []
    for count in (1, 2, 5):
        with threads(count):
            leaf = values.clone().requires_grad_()
            results.append(segment_reduce(leaf, order, offsets, reduce))
            results[-1].square().sum().backward()
            grads.append(leaf.grad)
    assert torch.equal(results[0], wanted)  # summed in double, rounded once
    assert all(torch.equal(results[0], other) for other in results)
    assert all(torch.equal(grads[0], other) for other in grads)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_order_of_rows_does_not_change_sums(reduce):
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(3000, 5, generator=generator)
    ids = torch.randint(0, 4, (3000,), generator=generator)
    shuffle = torch.randperm(3000, generator=generator)
    plain = segment_reduce(values, *segments_of(ids, 4), reduce)
    shuffled = segment_reduce(values[shuffle], *segments_of(ids[shuffle], 4), reduce)
    assert torch.equal(plain, shuffled)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_gradients_by_differences(reduce):
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(12, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    order, offsets = segments_of([0, 1, 1, 3, 0, -1, 1, 0, 3, 4, 1, 1], 6)

    def run(leaf):
        return segment_reduce(leaf, order, offsets, reduce)

    assert gradcheck(run, values)
    assert gradgradcheck(run, values)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize(("rows", "segments"), [(0, 0), (0, 3), (4, 3)])
def test_no_rows_in_any_segment(reduce, rows, segments):
    values = torch.ones(rows, 2, requires_grad=True)
    nothing = torch.zeros(0, dtype=torch.int64)
    offsets = torch.zeros(segments + 1, dtype=torch.int64)
    result = segment_reduce(values, nothing, offsets, reduce)
    assert torch.equal(result, torch.zeros(segments, 2))
    result.sum().backward()
    assert torch.equal(values.grad, torch.zeros(rows, 2))


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_no_columns(reduce):
    result = segment_reduce(torch.zeros(3, 0), *segments_of([0, 0, 1], 2), reduce)
    assert result.shape == (2, 0)


@pytest.mark.parametrize("columns", [1, 8, 32])
@pytest.mark.parametrize("reduce_rows", [segment_reduce, reference])
def test_maximum_of_special_values(reduce_rows, columns):
    inf, nan = torch.inf, torch.nan
    values = torch.tensor([[-inf], [-inf], [1.0], [nan], [inf], [nan]]).repeat(1, columns)
    values.requires_grad_()
    result = reduce_rows(values, *segments_of([0, 0, 1, 1, 1, 1], 2), "max")
    assert torch.equal(result[0], torch.full((columns,), -inf))
    assert result[1].isnan().all()
    result.sum().backward()
    assert values.grad[:, 0].tolist() == [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_half_precision_is_rounded_once(reduce, dtype):
    values = torch.rand(500, 6).to(dtype)
    values.requires_grad_()
    order, offsets = segments_of(torch.arange(500) % 3, 3)
    result = segment_reduce(values, order, offsets, reduce)
    wanted = segment_reduce(values.detach().double(), order, offsets, reduce).to(dtype)
    assert result.dtype == dtype
    torch.testing.assert_close(result, wanted, rtol=torch.finfo(dtype).eps, atol=0.0)
    result.sum().backward()
    assert values.grad.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("columns", [1, 5, 8, 43])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_16_bit_storage_equals_the_reference_in_double(reduce, columns, dtype):
    generator = torch.Generator().manual_seed(columns)
    ids = torch.randint(-1, 40, (9000,), generator=generator)
    ids[torch.rand(9000, generator=generator) < 0.6] = 7  # more rows than one piece holds
    order, offsets = segments_of(ids, 41)
    values = torch.randn(9000, columns, generator=generator).to(dtype).requires_grad_()
    wide = values.detach().double().requires_grad_()
    result = segment_reduce(values, order, offsets, reduce)
    wanted = reference(wide, order, offsets, reduce)
    torch.testing.assert_close(result, wanted.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)
    grad = torch.randn(result.shape, generator=generator).to(dtype)
    result.backward(grad)
    wanted.backward(grad.double())
    wanted_grad = wide.grad.to(dtype)
    torch.testing.assert_close(values.grad, wanted_grad, rtol=torch.finfo(dtype).eps, atol=1e-6)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=50))
def test_sum_keeps_the_total(ids):
    values = torch.arange(2.0 * len(ids), dtype=torch.float64).reshape(-1, 2)
    order, offsets = segments_of(ids, 6)
    total = segment_reduce(values, order, offsets, "sum").sum(0)
    assert torch.equal(total, values.sum(0))
    means = segment_reduce(values, order, offsets, "mean")
    torch.testing.assert_close((means * offsets.diff()[:, None]).sum(0), values.sum(0))


def test_non_contiguous_values_and_gradient():
    values = torch.randn(6, 20, dtype=torch.float64).T.requires_grad_()
    order, offsets = segments_of(torch.arange(20) % 4, 4)
    result = segment_reduce(values, order, offsets, "mean")
    torch.testing.assert_close(result, reference(values, order, offsets, "mean"))
    (grad,) = torch.autograd.grad(result.sum(), values)  # sum sends an expanded gradient
    torch.testing.assert_close(grad, torch.full_like(values, 0.2))


@pytest.mark.parametrize("grad", [False, True])
def test_opcheck(grad):
    values = torch.randn(8, 3, requires_grad=grad)
    order, offsets = segments_of([0, 1, 1, 2, 0, -1, 1, 0], 3)
    torch.library.opcheck(native.segment_sum, (values, order, offsets, True))
    torch.library.opcheck(native.segment_max, (values, order, offsets, True))
    upstream = torch.randn(3, 3, requires_grad=grad)
    torch.library.opcheck(native.segment_sum_backward, (upstream, order, offsets, 8, True))
    rows = native.segment_max(values.detach(), order, offsets, True)[1]
    torch.library.opcheck(native.segment_max_backward, (upstream, rows, 8))


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_compiles_whole_with_gradient(reduce):
    order, offsets = segments_of([0, 1, 1, 2], 3)

    def loss(values):
        return segment_reduce(values, order, offsets, reduce).square().sum()

    plain, compiled = torch.randn(4, 9, requires_grad=True), None
    loss(plain).backward()
    compiled = plain.detach().clone().requires_grad_()
    torch.compile(loss, fullgraph=True, backend="aot_eager")(compiled).backward()
    torch.testing.assert_close(compiled.grad, plain.grad)


def test_errors():
    values = torch.zeros(4, 2)
    order, offsets = segments_of([0, 1, 1, 0], 2)
    with pytest.raises(ValueError, match="reduce must be 'sum', 'mean' or 'max', got 'median'"):
        segment_reduce(values, order, offsets, "median")
    with pytest.raises(TypeError, match=r"values must be \(R, C\) float32 or .*got \(4, 2\) int64"):
        segment_reduce(values.long(), order, offsets)
    with pytest.raises(ValueError, match=r"values must be \(R, C\)"):
        segment_reduce(values[0], order, offsets)
    with pytest.raises(ValueError, match=r"offsets must be \(N \+ 1,\)"):
        segment_reduce(values, order, offsets[:0])
    with pytest.raises(ValueError, match="one device"):
        segment_reduce(values.to("meta"), order, offsets)
    with pytest.raises(RuntimeError, match=r"order must be in 0\.\.3, got 4 in row 0"):
        segment_reduce(values, order + 4, offsets)
    with pytest.raises(RuntimeError, match="offsets must run from 0 to 4, got 0 to 2"):
        segment_reduce(values, order, offsets[:-1])
    with pytest.raises(RuntimeError, match="offsets must ascend, got 6 before 4"):
        segment_reduce(values, order, torch.tensor([0, 6, 4]), "max")
