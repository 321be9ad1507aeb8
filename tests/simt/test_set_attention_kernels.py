"""The CUDA kernels of set attention on the interpreter."""

import pytest
import torch
from simt_library import load_simt_library, schedule

from perception3d.ops.reference.set_attention import set_attention as reference

simt = load_simt_library()
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 5e-6,
    torch.float16: 4 * 2**-11,
    torch.bfloat16: 4 * 2**-8,
}
# Kernels of their own: 16-bit numbers go through tensor cores.
TYPES = [torch.float32, torch.bfloat16]
# A set that ends in a warp's rows, sets of one, no row at all, and one over several warps and
# pieces of the other rows.
SIZES = [3, 1, 1, 0, 14, 20, 37, 5]


def sets_of(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(sum(sizes), generator=generator)
    return order, torch.tensor([0, *sizes]).cumsum(0)


def sample(sizes, heads, width, dtype, seed=0):
    """Tables, and projections (N, 4, H, D) with the incoming gradient as the last one."""
    generator = torch.Generator().manual_seed(seed)
    shape = (sum(sizes), 4, heads, width)
    return sets_of(sizes, seed), torch.randn(shape, generator=generator).to(dtype)


def run(tables, query, key, value, grad):
    """Result, logarithm of sums, and gradients."""
    result, log_sum = simt.set_attention(query, key, value, *tables, True)
    alone, nothing = simt.set_attention(query, key, value, *tables, False)
    torch.testing.assert_close(alone, result, rtol=0, atol=0, equal_nan=True)
    assert nothing.numel() == 0
    gradients = simt.set_attention_backward(grad, query, key, value, result, log_sum, *tables)
    return result, log_sum, *gradients.view(query.shape[0], 3, *query.shape[1:]).unbind(1)


def check(tables, query, key, value, grad):
    """Compare result and gradients with the reference in float64."""
    ours = run(tables, query, key, value, grad)
    leaves = [row.double().requires_grad_() for row in (query, key, value)]
    wanted = reference(*leaves, *tables)
    wanted = wanted.detach(), *torch.autograd.grad(wanted, leaves, grad.double())
    for number, (a, b) in enumerate(zip((ours[0], *ours[2:]), wanted, strict=True)):
        error = (a.double() - b).abs().max() / b.abs().max().clamp(min=1)
        assert error <= TOLERANCE[query.dtype], f"number {number}: {error:.2e}"
    return ours


@pytest.mark.parametrize("dtype", TOLERANCE.keys(), ids=str)
@pytest.mark.parametrize("width", [1, 6, 8, 16, 24, 32, 40, 64])
def test_equals_reference(width, dtype):
    tables, rows = sample(SIZES, 3, width, dtype)
    check(tables, *rows.unbind(1))


@pytest.mark.parametrize("dtype", TOLERANCE.keys(), ids=str)
def test_wide_heads(dtype):
    tables, rows = sample([5, 9], 1, 136, dtype)
    check(tables, *rows.unbind(1))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_more_heads_than_a_block_has_warps(dtype):
    tables, rows = sample([5, 12, 1], 11, 8, dtype)
    check(tables, *rows.unbind(1))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_long_set_among_short_ones(dtype):
    tables, rows = sample([1, 2, 300, 1, 3], 1, 16, dtype)
    check(tables, *rows.unbind(1))


@pytest.mark.parametrize("shift", [1, 2, 4])
def test_rows_that_are_not_aligned(shift):
    tables, rows = sample([5, 20], 2, 8, torch.bfloat16)
    memory = torch.zeros(rows.numel() + shift, dtype=rows.dtype)[shift:].view(rows.shape)
    check(tables, *memory.copy_(rows).unbind(1))


def test_heads_before_rows():
    tables, rows = sample([5, 20], 2, 12, torch.float32)
    turned = rows.permute(1, 2, 0, 3).contiguous().permute(2, 0, 1, 3)
    check(tables, *turned.unbind(1))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_one_projection(dtype):
    tables, rows = sample(SIZES, 2, 16, dtype)
    query, key, value, _ = rows.unbind(1)
    wanted = simt.set_attention(query, key, value, *tables, True)
    for ours, theirs in zip(
        simt.set_attention_qk(rows[:, :2], value, *tables, True), wanted, strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", [(0, 4, 2, 8), (9, 4, 0, 8), (9, 4, 2, 0)])
def test_nothing_to_do(shape):
    tables = sets_of([shape[0]])
    result, _, *gradients = run(tables, *torch.zeros(shape).unbind(1))
    assert all(tensor.shape == (shape[0], *shape[2:]) for tensor in (result, *gradients))


def test_heads_without_numbers_share_alike():
    tables = sets_of([3, 1])
    empty = torch.zeros(4, 2, 0)
    _, log_sum = simt.set_attention(empty, empty, empty, *tables, True)
    wanted = torch.tensor([3.0, 3, 3, 1]).log2()[:, None].expand(4, 2)
    torch.testing.assert_close(log_sum[tables[0]], wanted)


def test_no_sets():
    tables = sets_of([])
    result, *_ = run(tables, *torch.zeros(0, 4, 2, 8).unbind(1))
    assert result.shape == (0, 2, 8)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("sizes", [(9, 9), (3, 40, 2, 20)])
def test_what_is_not_finite_stays_in_its_set(sizes, number, dtype):
    tables, rows = sample(sizes, 2, 8, dtype)
    wanted = run(tables, *rows.unbind(1))
    bad = tables[0][: sizes[0]]
    others = tables[0][sizes[0] :]
    # Tiles of 16-bit rows are cut elsewhere then, and weights rounded relative to another.
    tolerance = 0 if dtype == torch.float32 else TOLERANCE[dtype]
    for part, name in enumerate(("query", "key", "value", "gradient")):
        spoilt = rows.clone()
        spoilt[bad[1], part] = number
        ours = run(tables, *spoilt.unbind(1))
        for a, b in zip(ours, wanted, strict=True):
            torch.testing.assert_close(a[others], b[others], rtol=tolerance, atol=tolerance)
        spread = ours[2] if name == "gradient" else ours[0]
        assert not spread[bad[1]].isfinite().any(), name


def test_huge_scores():
    tables, rows = sample([40, 3], 1, 8, torch.float32)
    query, key, value, grad = (300 * rows).unbind(1)
    result, log_sum, *_ = run(tables, query, key, value / 300, grad / 300)
    exact = reference(query.double(), key.double(), value.double() / 300, *tables)
    assert torch.isfinite(log_sum).all()
    torch.testing.assert_close(result.double(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_order_of_blocks_and_lanes_does_not_matter(dtype):
    tables, rows = sample(SIZES, 2, 24, dtype)
    wanted = run(tables, *rows.unbind(1))
    for number in (1, 2):
        with schedule(number):
            ours = run(tables, *rows.unbind(1))
        assert all(torch.equal(a, b) for a, b in zip(ours, wanted, strict=True))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_wrong_rows_are_found(dtype):
    tables, rows = sample([5, 4], 1, 8, dtype)
    order = tables[0].clone()
    order[3] = 9
    with pytest.raises(RuntimeError, match=r"set_attention: order must be in 0\.\.8, got 9"):
        simt.set_attention(*rows.unbind(1)[:3], order, tables[1], False)
    with pytest.raises(RuntimeError, match="set_attention: offsets must be in"):
        simt.set_attention(*rows.unbind(1)[:3], tables[0], tables[1] - 6, False)


def test_refusals():
    tables, rows = sample([5, 4], 1, 8, torch.float32)
    wide = torch.zeros(9, 1, 257)
    with pytest.raises(RuntimeError, match="heads may have up to 256 numbers on CUDA, got 257"):
        simt.set_attention(wide, wide, wide, *tables, False)
    query, key, value, _ = rows.unbind(1)
    with pytest.raises(RuntimeError, match="value must have size 9 in dimension 0, got 8"):
        simt.set_attention(query, key, value[:8], *tables, False)
    with pytest.raises(RuntimeError, match="offsets must run from 0 to 9, got one number"):
        simt.set_attention(query, key, value, tables[0], tables[1][:1], False)
