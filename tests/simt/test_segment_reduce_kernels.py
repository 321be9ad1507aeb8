"""The CUDA kernels of segment_reduce on the interpreter."""

import pytest
import torch
from simt_library import schedule

from perception3d.ops import segment_index
from perception3d.ops.reference.segment_reduce import segment_reduce as reference

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def rows_and_segments(rows, columns, dtype, segments=40, hot=0.0):
    """Few distinct values, so that maxima tie; a share `hot` of the rows in segment 3."""
    generator = torch.Generator().manual_seed(rows + columns)
    ids = torch.randint(-1, segments - 2, (rows,), generator=generator)
    ids[torch.rand(rows, generator=generator) < hot] = 3
    values = torch.randint(-9, 9, (rows, columns), generator=generator).to(dtype) / 8
    return values, *segment_index(ids, segments)


def check_all(kernels, values, order, offsets):
    """Compare sum, mean and maximum, forward and backward, with the reference in float64."""
    generator = torch.Generator().manual_seed(0)
    grad = torch.randint(-9, 9, (offsets.shape[0] - 1, values.shape[1]), generator=generator) / 4
    rows = values.shape[0]
    for reduce in ("sum", "mean", "max"):
        leaf = values.double().clone().requires_grad_()
        wanted = reference(leaf, order, offsets, reduce)
        wanted.backward(grad.double())
        if reduce == "max":
            result, row = kernels.segment_max(values, order, offsets, True)
            assert torch.equal(kernels.segment_max(values, order, offsets, False)[0], result)
            back = kernels.segment_max_backward(grad.to(values.dtype), row, rows)
        else:
            mean = reduce == "mean"
            result = kernels.segment_sum(values, order, offsets, mean)
            back = kernels.segment_sum_backward(grad.to(values.dtype), order, offsets, rows, mean)
        # Sums of eighths are exact; a mean is rounded in float, then to the result's type.
        torch.testing.assert_close(result, wanted.to(values.dtype))
        torch.testing.assert_close(back, leaf.grad.to(values.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 3, 8, 40, 136])
def test_equals_reference(kernels, columns, dtype):
    check_all(kernels, *rows_and_segments(300, columns, dtype))


@pytest.mark.parametrize("columns", [1, 5, 64])
def test_hot_segment_among_others(kernels, columns):
    values, order, offsets = rows_and_segments(3000, columns, torch.float32, hot=0.8)
    assert offsets.diff().max() > 2000
    check_all(kernels, values, order, offsets)


@pytest.mark.parametrize("counts", [[256], [257], [0, 512, 0], [300, 300, 1], [1, 511, 257, 5]])
def test_long_segments_at_every_place_of_a_tile(kernels, counts):
    rows = sum(counts)
    generator = torch.Generator().manual_seed(rows)
    values = torch.randint(-9, 9, (rows, 4), generator=generator) / 8
    order = torch.randperm(rows, generator=generator)
    check_all(kernels, values, order, torch.tensor([0, *counts]).cumsum(0))


@pytest.mark.parametrize(("rows", "segments"), [(0, 0), (0, 3), (4, 3), (1, 1)])
@pytest.mark.parametrize("columns", [0, 1, 4])
def test_few_rows(kernels, rows, segments, columns):
    held = min(rows, segments, 1)
    offsets = torch.full((segments + 1,), held)
    offsets[0] = 0
    check_all(kernels, torch.ones(rows, columns), torch.arange(held), offsets)


def test_rows_that_no_16_byte_access_can_reach(kernels):
    values, order, offsets = rows_and_segments(40, 8, torch.float32)
    shifted = torch.empty(40 * 8 + 1)[1:].view(40, 8).copy_(values)
    assert shifted.data_ptr() % 16 != 0
    check_all(kernels, shifted, order, offsets)


def test_special_values(kernels):
    inf, nan = torch.inf, torch.nan
    values = torch.tensor([[-inf], [-inf], [1.0], [nan], [inf], [nan]])
    order, offsets = segment_index(torch.tensor([0, 0, 1, 1, 1, 1]), 2)
    best, row = kernels.segment_max(values, order, offsets, True)
    assert best[0].item() == -inf
    assert best[1].isnan()
    assert row.flatten().tolist() == [0, 3]


@pytest.mark.parametrize("columns", [5, 64])
def test_no_order_of_threads_changes_a_bit(interpreter, columns):
    values, order, offsets = rows_and_segments(900, columns, torch.float32, hot=0.7)
    values = torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    results = []
    for number in (0, 1, 2):
        with schedule(number):
            results.append(interpreter.segment_sum(values, order, offsets, False))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_what_would_read_elsewhere_is_reported(interpreter):
    values, order, offsets = rows_and_segments(40, 4, torch.float32)
    order[3] = 40
    with pytest.raises(RuntimeError, match=r"order must be in 0\.\.39, got 40"):
        interpreter.segment_sum(values, order, offsets, False)
    offsets[-1] += 1
    with pytest.raises(RuntimeError, match="reads 8 bytes at byte .* of order"):
        interpreter.segment_sum(values, order.clamp(max=39), offsets, False)
