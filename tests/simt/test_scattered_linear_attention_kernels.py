"""The CUDA kernels of scattered_linear_attention on the interpreter."""

import pytest
import torch
from simt_library import schedule

from perception3d.ops.reference.scattered_linear_attention import (
    scattered_linear_attention as reference,
)

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 5e-3, torch.float16: 1e-3}
# Short windows have up to 16 rows and are taken by 16 places at a time, longer ones by tiles of
# 32 to 128: lengths around all of them, at every place of a tile, empty windows among them.
MIXED = (1, 0, 16, 17, 3, 40, 15, 1, 1, 0, 130, 5, 33, 16, 2, 0)


def offsets_of(lengths):
    return torch.tensor([0, *lengths]).cumsum(0)


def random_inputs(lengths, heads, width, value_width, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    widths = (width, width, value_width, value_width)
    rows = sum(lengths)
    return [torch.randn(rows, heads, w, generator=generator).to(dtype) for w in widths]


def check_all(kernels, inputs, lengths, order=None, epsilon=1e-6):
    """Compare result and gradients with the reference in float64; returns what the kernels gave."""
    query, key, value, grad = inputs
    offsets = offsets_of(lengths)
    leaves = [x.double().requires_grad_() for x in (query, key, value)]
    wanted = reference(*leaves, offsets, order=order, epsilon=epsilon)
    gradients = torch.autograd.grad(wanted, leaves, grad.double())
    result = kernels.scattered_linear_attention(query, key, value, offsets, order, epsilon)
    packed = kernels.scattered_linear_attention_backward(
        grad, query, key, value, offsets, order, epsilon
    )
    rows = query.shape[0]
    parts = packed.split([x[0].numel() for x in (query, key, value)], 1)
    found = [result, *(x.view(rows, *y.shape[1:]) for x, y in zip(parts, leaves, strict=True))]
    tolerance = TOLERANCES[query.dtype]
    for got, want in zip(found, [wanted, *gradients], strict=True):
        assert got.dtype == query.dtype
        scale = max(want.abs().max().item(), 1e-3)
        assert (got.double() - want).abs().max().item() <= tolerance * scale
    return result, packed


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "width", "value_width"), [(2, 32, 32), (1, 16, 16)])
def test_equals_reference(kernels, heads, width, value_width, dtype):
    check_all(kernels, random_inputs(MIXED, heads, width, value_width, dtype), MIXED)


@pytest.mark.parametrize(
    ("heads", "width", "value_width"), [(1, 1, 1), (2, 5, 17), (1, 24, 40), (1, 48, 8), (1, 64, 80)]
)
def test_any_width(kernels, heads, width, value_width):
    lengths = (20, 4, 70)
    epsilon = 0.5 if width == 1 else 1e-6  # else the query cancels out
    inputs = random_inputs(lengths, heads, width, value_width, torch.float32)
    check_all(kernels, inputs, lengths, epsilon=epsilon)


def test_rows_in_any_order(kernels):
    inputs = random_inputs(MIXED, 1, 16, 8, torch.float32)
    order = torch.randperm(sum(MIXED), generator=torch.Generator().manual_seed(1))
    check_all(kernels, inputs, MIXED, order)


@pytest.mark.parametrize(
    "lengths", [(600,), (128, 128), (127, 129, 17), (1,) * 150, (17,) * 9, (16,) * 9, (300, 1, 290)]
)
def test_windows_at_the_borders_of_tiles(kernels, lengths):
    check_all(kernels, random_inputs(lengths, 1, 16, 16, torch.float32), lengths, epsilon=1e-2)


def test_lone_rows_are_exact(kernels):
    """Nearly everything cancels out of their gradients; see `finish_alone` of the CPU."""
    lengths = (1,) * 40
    inputs = random_inputs(lengths, 1, 8, 8, torch.float32)
    query, key, value, grad = inputs
    leaves = [x.double().requires_grad_() for x in (query, key, value)]
    wanted = torch.autograd.grad(reference(*leaves, offsets_of(lengths)), leaves, grad.double())
    packed = kernels.scattered_linear_attention_backward(
        grad, query, key, value, offsets_of(lengths), None, 1e-6
    )
    for got, want in zip(packed.split(8, 1), wanted, strict=True):
        torch.testing.assert_close(got.double(), want[:, 0], rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("gap", "shift"), [(0, 0), (8, 8), (3, 1)])
def test_views_of_one_projection(kernels, dtype, gap, shift):
    """Read in place, by 16 bytes where they lie so, else number by number."""
    lengths = (30, 2, 41)
    row = torch.randn(73, 3 * 2 * 8 + gap + shift, generator=torch.Generator().manual_seed(2))
    row = row.to(dtype)
    query, key, value = (
        row[:, shift + 16 * i : shift + 16 * i + 16].view(73, 2, 8) for i in (0, 1, 2)
    )
    grad = torch.randn(2, 73, 8).to(dtype).transpose(0, 1)
    result, packed = check_all(kernels, (query, key, value, grad), lengths)
    copies = [x.contiguous() for x in (query, key, value, grad)]
    again = check_all(kernels, copies, lengths)
    assert torch.equal(result, again[0])
    assert torch.equal(packed, again[1])


def test_one_projection(kernels):
    qkv = torch.randn(50, 3, 2, 12, generator=torch.Generator().manual_seed(3))
    offsets = offsets_of((30, 20))
    result = kernels.scattered_linear_attention_qkv(qkv, offsets, None, 1e-6)
    parts = kernels.scattered_linear_attention(*qkv.unbind(1), offsets, None, 1e-6)
    assert torch.equal(result, parts)


def test_zero_denominators(kernels):
    lengths = (20, 4, 20, 4)
    query, key, value, grad = random_inputs(lengths, 1, 8, 8, torch.float32)
    query[:24] = -query[:24].abs()
    key[24:] = -key[24:].abs()
    result, packed = check_all(kernels, (query, key, value, grad), lengths)
    assert torch.equal(result, torch.zeros_like(result))
    assert packed.isfinite().all()


@pytest.mark.parametrize("lengths", [(), (0, 0)])
def test_no_rows(kernels, lengths):
    query, key, value, grad = random_inputs(lengths, 2, 8, 4, torch.float32)
    arguments = (query, key, value, offsets_of(lengths), None, 1e-6)
    assert kernels.scattered_linear_attention(*arguments).shape == (0, 2, 4)
    assert kernels.scattered_linear_attention_backward(grad, *arguments).shape == (0, 40)


@pytest.mark.parametrize(("heads", "width", "value_width"), [(0, 4, 4), (2, 0, 4), (2, 4, 0)])
def test_no_numbers(kernels, heads, width, value_width):
    lengths = (3, 20)
    query, key, value, grad = random_inputs(lengths, heads, width, value_width, torch.float32)
    arguments = (query, key, value, offsets_of(lengths), None, 1e-6)
    result = kernels.scattered_linear_attention(*arguments)
    assert torch.equal(result, torch.zeros(23, heads, value_width))
    packed = kernels.scattered_linear_attention_backward(grad, *arguments)
    assert torch.equal(packed, torch.zeros(23, heads * (2 * width + value_width)))


def test_no_order_of_threads_changes_a_bit(interpreter):
    inputs = random_inputs(MIXED, 1, 32, 32, torch.float32)
    *rows, grad = inputs
    arguments = (*rows, offsets_of(MIXED), None, 1e-6)
    results = []
    for number in (0, 1, 2):
        with schedule(number):
            results.append(
                (
                    interpreter.scattered_linear_attention(*arguments),
                    interpreter.scattered_linear_attention_backward(grad, *arguments),
                )
            )
    for result in results[1:]:
        assert torch.equal(result[0], results[0][0])
        assert torch.equal(result[1], results[0][1])


def test_what_is_refused(kernels, interpreter):
    query, key, value, _ = random_inputs((30,), 1, 8, 8, torch.float32)
    order = torch.arange(30)
    order[4] = 30
    with pytest.raises(RuntimeError, match=r"order must be in 0\.\.29, got 30"):
        interpreter.scattered_linear_attention(query, key, value, offsets_of((30,)), order, 1e-6)
    with pytest.raises(RuntimeError, match=r"offsets must be in 0\.\.30, got 31"):
        interpreter.scattered_linear_attention(query, key, value, torch.tensor([0, 31]), None, 1e-6)
    wide = torch.zeros(2, 1, 300)
    with pytest.raises(RuntimeError, match="widths of 300 and 300 need more shared memory"):
        kernels.scattered_linear_attention(wide, wide, wide, offsets_of((2,)), None, 1e-6)
    with pytest.raises(RuntimeError, match="offsets must run from 0 to 30, got 0 to 0"):
        kernels.scattered_linear_attention(query, key, value, offsets_of(()), None, 1e-6)
