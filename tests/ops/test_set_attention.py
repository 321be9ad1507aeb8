"""Attention inside sets: hand-computed, against the formula, gradients."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F
from voxel_samples import random_coords, threads

from perception3d.ops import set_attention, set_attention_qk, set_partition, window_partition
from perception3d.ops.reference.set_attention import set_attention as reference
from perception3d.ops.reference.set_attention import set_attention_qk as reference_qk

BOTH = pytest.mark.parametrize("attend", [set_attention, reference])
native = torch.ops.perception3d
# Largest error of one rounding, times the sums that it goes through.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 5e-6,
    torch.float16: 4 * 2**-11,
    torch.bfloat16: 4 * 2**-8,
}


def sets_of(sizes, seed=0):
    """Sets of the given sizes; members anywhere among the rows."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(sum(sizes), generator=generator)
    return order, torch.tensor([0, *sizes]).cumsum(0)


def partitioned(count, set_size, seed=0):
    """One sort order of a real partition."""
    coords = random_coords(count, 2, (2, 9, 9), seed)
    _, order, offsets, cells = window_partition(coords, 2, (2, 9, 9), (2, 4, 4), (0, 0, 0))
    *_, set_order, set_offsets = set_partition(cells, order, offsets, set_size)
    return set_order[1], set_offsets


def random_rows(tables, heads=2, width=4, *, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (tables[0].shape[0], heads, width)
    return [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(3)]


def with_gradients(attend, rows, grad, tables):
    """Result, then the gradients of query, key and value."""
    leaves = [row.detach().requires_grad_() for row in rows]
    result = attend(*leaves, *tables)
    return result.detach(), *torch.autograd.grad(result, leaves, grad)


def assert_close(ours, theirs, tolerance):
    """Compare relative to the largest number of each; inputs have size 1."""
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        error = (a.double() - b).abs().max() / b.abs().max().clamp(min=1)
        assert error <= tolerance, f"number {number}: {error:.2e}"


@BOTH
def test_by_hand(attend):
    # Rows 2 and 0 are one set, row 1 is alone.
    order, offsets = torch.tensor([2, 0, 1]), torch.tensor([0, 2, 3])
    query = torch.tensor([1.0, 5.0, 0.0]).reshape(3, 1, 1)
    key = torch.tensor([0.0, 9.0, math.log(3.0)]).reshape(3, 1, 1)
    value = torch.tensor([8.0, -7.0, 4.0]).reshape(3, 1, 1)
    result = attend(query, key, value, order, offsets)
    # Row 0 weighs the keys of rows 0 and 2 as 1 : 3, row 2 weighs them 1 : 1.
    torch.testing.assert_close(result.flatten(), torch.tensor([5.0, -7.0, 6.0]))


@BOTH
def test_scores_shrink_with_the_root_of_the_width(attend):
    order, offsets = torch.tensor([0, 1]), torch.tensor([0, 2])
    query = torch.zeros(2, 1, 4)
    query[0, 0] = 1.0
    key = torch.zeros(2, 1, 4)
    key[1, 0] = 2 * math.log(3.0) / 4  # query . key / sqrt(4) = ln 3
    value = torch.tensor([8.0, 4.0]).reshape(2, 1, 1).expand(2, 1, 4)
    result = attend(query, key, value.contiguous(), order, offsets)
    torch.testing.assert_close(result[:, 0], torch.tensor([[5.0] * 4, [6.0] * 4]))


def test_reference_is_the_attention_of_torch():
    tables = sets_of([3, 1, 5])
    rows = random_rows(tables)
    result = reference(*rows, *tables)
    for members in tables[0].split([3, 1, 5]):
        query, key, value = (row[members].transpose(0, 1) for row in rows)
        wanted = F.scaled_dot_product_attention(query, key, value).transpose(0, 1)
        torch.testing.assert_close(result[members], wanted)


# Sizes around the 4, 8 and 16 queries of a vector and the 8 keys of a tile, around the 128 keys
# that are looked at together.
SIZES = {
    "one row": [1],
    "around vectors": [3, 1, 36, 0, 20, 5, 2, 7, 4, 8, 9, 15, 16, 17, 31, 33],
    "around pieces": [127, 0, 1, 128, 129, 256, 257],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("width", [1, 5, 16, 24, 32, 72])
@pytest.mark.parametrize("dtype", TOLERANCE.keys(), ids=str)
def test_equals_reference(sizes, width, dtype):
    compare_with_reference(sizes, width, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_long_sets_equal_reference(dtype):
    compare_with_reference([300, 2041, 1, 40], 24, dtype)


def compare_with_reference(sizes, width, dtype):
    """Result and gradients, on inputs that the dtype holds exactly."""
    tables = sets_of(sizes)
    exact = [row.to(dtype).double() for row in random_rows(tables, 2, width)]
    grad = torch.randn(exact[0].shape, dtype=torch.float64).to(dtype)
    wanted = with_gradients(reference, exact, grad.double(), tables)
    ours = with_gradients(set_attention, [row.to(dtype) for row in exact], grad, tables)
    assert all(tensor.dtype == dtype for tensor in ours)
    assert_close(ours, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("set_size", [1, 5, 36])
def test_on_real_partitions(set_size):
    tables = partitioned(120, set_size)
    rows = random_rows(tables)
    torch.testing.assert_close(set_attention(*rows, *tables), reference(*rows, *tables))


def test_no_second_derivative():
    tables = sets_of([4, 2])
    rows = [row.requires_grad_() for row in random_rows(tables)]
    (grad,) = torch.autograd.grad(
        set_attention(*rows, *tables).square().sum(), rows[0], create_graph=True
    )
    with pytest.raises(RuntimeError, match="set_attention: there is no second derivative"):
        grad.sum().backward()


def test_views_of_one_projection_are_read_in_place():
    tables = sets_of([40, 3, 17])
    projection = torch.randn(60, 3, 2, 24, dtype=torch.float64)
    wanted = with_gradients(reference, projection.unbind(1), projection[:, 0], tables)
    numbers = projection.float()
    assert not numbers[:, 1].is_contiguous()
    ours = with_gradients(set_attention, numbers.unbind(1), numbers[:, 0], tables)
    assert_close(ours, wanted, 5e-6)
    # Heads before rows: the head stride is the larger one.
    turned = projection.permute(1, 2, 0, 3).contiguous().permute(2, 0, 1, 3).float()
    assert turned.stride(2) > turned.stride(0)
    ours = with_gradients(set_attention, turned.unbind(1), turned[:, 0], tables)
    assert_close(ours, wanted, 5e-6)


def test_other_strided_inputs():
    tables = sets_of([9, 30])
    rows = random_rows(tables, 3, 8)
    wanted = set_attention(*rows, *tables)
    strided = [torch.stack([row, row], dim=-1)[..., 0] for row in rows]
    spread = [torch.stack([table, table], dim=-1)[..., 0] for table in tables]
    assert not any(row.stride(2) == 1 for row in strided)
    assert torch.equal(set_attention(*strided, *spread), wanted)
    same = rows[0][:1].expand(39, 3, 8)  # row stride 0
    constant = set_attention(rows[0], rows[1], same, *tables)
    torch.testing.assert_close(constant, same)


def test_same_bits_on_any_number_of_threads():
    tables = sets_of([700, *range(60), 300])
    rows = random_rows(tables, 3, 24, dtype=torch.float32)
    with threads(1):
        wanted = with_gradients(set_attention, rows, rows[0], tables)
    for number in (2, 5):
        with threads(number):
            ours = with_gradients(set_attention, rows, rows[0], tables)
        assert all(torch.equal(a, b) for a, b in zip(ours, wanted, strict=True))


def test_huge_and_equal_scores():
    tables = sets_of([200, 5])
    query, key, value = random_rows(tables, 1, 8, dtype=torch.float32)
    # Scores around 1e5: the softmax is a choice of the largest one.
    exact = reference(300 * query.double(), 300 * key.double(), value.double(), *tables)
    result = set_attention(300 * query, 300 * key, value, *tables)
    assert torch.isfinite(result).all()
    torch.testing.assert_close(result.double(), exact, rtol=0.05, atol=0.05)
    mean = set_attention(torch.zeros_like(query), key, value, *tables)
    members = tables[0][200:]
    torch.testing.assert_close(mean[members], value[members].mean(0).expand(5, 1, 8))


def test_not_a_number_stays_in_its_set():
    tables = sets_of([20, 20])
    query, key, value = random_rows(tables, 2, 8, dtype=torch.float32)
    key[tables[0][3], 1] = torch.nan
    result = set_attention(query, key, value, *tables)
    assert result[tables[0][:20], 1].isnan().all()
    assert result[tables[0][:20], 0].isfinite().all()
    assert result[tables[0][20:]].isfinite().all()


def test_weights_are_exact_to_rounding():
    # Two keys with scores 0 and s: the second weight is 1 / (1 + exp(s)), s over many binades.
    count = 4000
    scores = -torch.logspace(-6, 1.9, count, dtype=torch.float64).float()
    tables = torch.arange(2 * count), torch.arange(0, 2 * count + 1, 2)
    query = torch.ones(2 * count, 1, 1)
    key = torch.stack([torch.zeros(count), scores], dim=1).reshape(-1, 1, 1)
    value = torch.tensor([0.0, 1.0]).repeat(count).reshape(-1, 1, 1)
    weight = set_attention(query, key, value, *tables)[::2].flatten().double()
    exact = torch.sigmoid(scores.double())
    # s log2(e) is rounded before the exponential: half a unit of s, beside some units of the rest.
    allowed = (4 + scores.double().abs()) * 2**-23
    assert ((weight - exact).abs() <= allowed * exact).all()


def test_gradients_by_differences():
    tables = partitioned(12, 3)
    rows = [row.requires_grad_() for row in random_rows(tables, heads=2, width=3)]
    assert gradcheck(lambda *leaves: set_attention(*leaves, *tables), rows)


@pytest.mark.parametrize("leaf", [0, 1, 2])
def test_one_gradient_alone(leaf):
    tables = sets_of([5, 9])
    rows = random_rows(tables)
    wanted = with_gradients(reference, rows, rows[0], tables)
    rows[leaf].requires_grad_()
    (grad,) = torch.autograd.grad(set_attention(*rows, *tables), rows[leaf], rows[0].detach())
    torch.testing.assert_close(grad, wanted[1 + leaf])


@pytest.mark.parametrize("dtype", TOLERANCE.keys(), ids=str)
def test_one_projection_is_the_same_attention(dtype):
    tables = sets_of([5, 36, 1, 9])
    *rows, grad = random_rows(tables, dtype=dtype) + random_rows(tables, dtype=dtype, seed=1)[:1]
    leaves = [torch.stack(rows[:2], 1).requires_grad_(), rows[2].clone().requires_grad_()]
    wanted = with_gradients(set_attention, rows, grad, tables)
    result = set_attention_qk(*leaves, *tables)
    of_query_key, of_value = torch.autograd.grad(result, leaves, grad)
    for ours, theirs in zip((result, *of_query_key.unbind(1), of_value), wanted, strict=True):
        assert torch.equal(ours, theirs)
    assert_close([result.detach()], [reference_qk(*leaves, *tables).double()], TOLERANCE[dtype])


def test_one_projection_is_read_and_its_gradient_left_in_place():
    tables = sets_of([5, 9])
    whole = torch.randn(14, 2 * 8 + 3)  # rows that lie apart
    query_key = whole[:, :16].requires_grad_()
    value = torch.randn(14, 2, 4)
    result = set_attention_qk(query_key.view(14, 2, 2, 4), value, *tables)
    apart = set_attention(*whole[:, :16].view(14, 2, 2, 4).unbind(1), value, *tables)
    assert torch.equal(result, apart)
    (gradient,) = torch.autograd.grad(result.sum(), query_key)
    assert gradient.stride() == (24, 1)  # a view of the three gradients


def test_nothing_is_kept_without_gradients():
    tables = sets_of([5, 9])
    rows = random_rows(tables)
    assert native.set_attention(*rows, *tables, False)[1].numel() == 0
    assert native.set_attention(*rows, *tables, True)[1].shape == (14, 2)


@pytest.mark.parametrize("offsets", [[0], [0, 0, 0]])
def test_no_voxels(offsets):
    tables = torch.zeros(0, dtype=torch.int64), torch.tensor(offsets)
    rows = [row.requires_grad_() for row in random_rows(tables)]
    result = set_attention(*rows, *tables)
    assert result.shape == (0, 2, 4)
    result.sum().backward()
    assert rows[0].grad.shape == (0, 2, 4)


@pytest.mark.parametrize("shape", [(6, 0, 4), (6, 2, 0)])
def test_no_heads_or_no_width(shape):
    tables = sets_of([2, 4])
    rows = [torch.zeros(shape, requires_grad=True) for _ in range(3)]
    result = set_attention(*rows, *tables)
    assert result.shape == shape
    result.sum().backward()
    assert rows[0].grad.shape == shape


def test_rows_further_apart_than_int32_counts():
    # Three rows of a tensor that takes address space but, untouched in between, no memory.
    apart = 2**30 + 5
    storage = torch.empty(2 * apart + 3 * 8, dtype=torch.bfloat16)
    rows = storage.as_strided((3, 3, 1, 8), (apart, 8, 8, 1))
    numbers = torch.randn(3, 3, 1, 8).bfloat16()
    rows.copy_(numbers)
    tables = torch.tensor([2, 0, 1]), torch.tensor([0, 3])
    assert torch.equal(
        set_attention(*rows.unbind(1), *tables), set_attention(*numbers.unbind(1), *tables)
    )


def test_opcheck():
    tables = sets_of([5, 9, 1])
    rows = [row.requires_grad_() for row in random_rows(tables)]
    torch.library.opcheck(native.set_attention, (*rows, *tables, True))
    query_key = torch.stack(rows[:2], 1).detach().requires_grad_()
    torch.library.opcheck(native.set_attention_qk, (query_key, rows[2], *tables, True))
    with torch.no_grad():
        result, log_sum = native.set_attention(*rows, *tables, True)
    inputs = [row.detach() for row in (rows[0], *rows, result)]
    torch.library.opcheck(native.set_attention_backward, (*inputs, log_sum, *tables))


def test_compiles_whole():
    tables = partitioned(60, 7)
    rows = random_rows(tables)
    compiled = torch.compile(set_attention, fullgraph=True, backend="aot_eager")
    grad = torch.randn_like(rows[0])
    for ours, theirs in zip(
        with_gradients(compiled, rows, grad, tables),
        with_gradients(set_attention, rows, grad, tables),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_one_projection_compiles_whole():
    tables = partitioned(60, 7)
    query, key, value = random_rows(tables)
    compiled = torch.compile(set_attention_qk, fullgraph=True, backend="aot_eager")
    leaf = torch.stack([query, key], 1).requires_grad_()
    gradients = [
        torch.autograd.grad(attend(leaf, value, *tables).square().sum(), leaf)[0]
        for attend in (compiled, set_attention_qk)
    ]
    torch.testing.assert_close(*gradients)


def test_second_derivative_of_one_projection_is_refused():
    tables = sets_of([5, 9])
    query, key, value = random_rows(tables)
    leaf = torch.stack([query, key], 1).requires_grad_()
    (gradient,) = torch.autograd.grad(
        set_attention_qk(leaf, value, *tables).square().sum(), leaf, create_graph=True
    )
    with pytest.raises(RuntimeError, match="set_attention: there is no second derivative"):
        gradient.sum().backward()


def test_errors_of_one_projection():
    order, offsets = sets_of([4, 6])
    query, key, value = random_rows((order, offsets))
    query_key = torch.stack([query, key], 1)
    with pytest.raises(ValueError, match=r"query_key must be \(N, 2, H, D\).*got \(10, 1, 2, 4\)"):
        set_attention_qk(query_key[:, :1], value, order, offsets)
    with pytest.raises(ValueError, match=r"value must be \(10, 2, 4\) float64, got \(10, 1, 4\)"):
        set_attention_qk(query_key, value[:, :1], order, offsets)
    with pytest.raises(TypeError, match=r"set_attention_qk: value must be .* float64, got .*32"):
        set_attention_qk(query_key, value.float(), order, offsets)
    with pytest.raises(ValueError, match=r"set_attention_qk: order must be \(10,\) int64, got"):
        set_attention_qk(query_key, value, order[:-1], offsets)
    with pytest.raises(RuntimeError, match=r"set_attention_qk: order must be a permutation"):
        set_attention_qk(query_key, value, order + 1, offsets)
    with pytest.raises(RuntimeError, match=r"query_key must have size 2 in dimension 1, got 3"):
        native.set_attention_qk(torch.zeros(10, 3, 2, 4), value.float(), order, offsets, False)


def test_errors():
    order, offsets = sets_of([4, 6])
    query, key, value = random_rows((order, offsets))
    with pytest.raises(ValueError, match=r"query must be \(N, H, D\) .*, got \(10, 8\)"):
        set_attention(query.flatten(1), key, value, order, offsets)
    with pytest.raises(ValueError, match=r"key must be \(10, 2, 4\) float64, got \(10, 1, 4\)"):
        set_attention(query, key[:, :1], value, order, offsets)
    with pytest.raises(TypeError, match=r"value must be .* float64, got .* float32"):
        set_attention(query, key, value.float(), order, offsets)
    with pytest.raises(TypeError, match=r"query must be .* float32 or .*, got .* int64"):
        set_attention(query.long(), key, value, order, offsets)
    with pytest.raises(TypeError, match=r"order must be \(10,\) int64, got .* int32"):
        set_attention(query, key, value, order.int(), offsets)
    with pytest.raises(ValueError, match=r"order must be \(10,\) int64, got \(9,\)"):
        set_attention(query, key, value, order[:-1], offsets)
    with pytest.raises(ValueError, match=r"offsets must be \(sets \+ 1,\) int64, got \(0,\)"):
        set_attention(query, key, value, order, offsets[:0])
    with pytest.raises(ValueError, match="one device"):
        set_attention(query, key, value, order, offsets.to("meta"))


@pytest.mark.parametrize(
    ("order", "offsets", "message"),
    [
        ([0, 1, 3], [0, 3], r"order must be a permutation of 0\.\.2, got 3 in row 2"),
        ([0, -1, 2], [0, 3], "got -1 in row 1"),
        ([0, 2, 2], [0, 3], "got 2 in row 2"),
        ([0, 2**62, 2], [0, 3], "got 4611686018427387904 in row 1"),
        ([0, 1, 2], [0, 2], "offsets must run from 0 to 3, got 0 to 2"),
        ([0, 1, 2], [1, 3], "offsets must run from 0 to 3, got 1 to 3"),
        ([0, 1, 2], [0, 3, 1, 3], "offsets must ascend, got 3 before 1"),
    ],
)
def test_wrong_tables_are_refused(order, offsets, message):
    tables = torch.tensor(order), torch.tensor(offsets)
    rows = [torch.zeros(3, 1, 4) for _ in range(3)]
    with pytest.raises(RuntimeError, match=f"set_attention: .*{message}"):
        set_attention(*rows, *tables)
    with pytest.raises(RuntimeError, match=f"set_attention_backward: .*{message}"):
        native.set_attention_backward(rows[0], *rows, rows[0], torch.zeros(3, 1), *tables)


def test_the_shell_protects_memory():
    tables = sets_of([4, 6])
    rows = random_rows(tables)
    short = [*rows[:2], rows[2][:9]]
    with pytest.raises(RuntimeError, match="value must have size 10 in dimension 0, got 9"):
        native.set_attention(*short, *tables, False)
    spread = torch.stack([rows[1], rows[1]], dim=-1)[..., 0]
    with pytest.raises(RuntimeError, match="key must have stride 1 in its last dimension, got 2"):
        native.set_attention(rows[0], spread, rows[2], *tables, False)
    with pytest.raises(RuntimeError, match="log_sum must have size 10 in dimension 0"):
        native.set_attention_backward(rows[0], *rows, rows[0], torch.zeros(9, 2).double(), *tables)
