"""Attention inside sets: hand-computed, against the formula, gradients."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from voxel_samples import random_coords

from perception3d.ops import set_attention, set_partition, window_partition
from perception3d.ops.reference.set_attention import set_attention as reference

BOTH = pytest.mark.parametrize("attend", [set_attention, reference])


def sets(count, set_size, seed=0):
    """Tables of one sort order."""
    coords = random_coords(count, 2, (2, 9, 9), seed)
    _, order, offsets, cells = window_partition(coords, 2, (2, 9, 9), (2, 4, 4), (0, 0, 0))
    voxel_of_slot, repeated, slot_of_voxel = set_partition(cells, order, offsets, set_size)
    return voxel_of_slot[1], repeated[1], slot_of_voxel[1]


def random_rows(tables, heads=2, channels=4, *, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (tables[2].shape[0], heads, channels)
    return [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(3)]


@BOTH
def test_by_hand(attend):
    # One set of three slots: voxel 1, voxel 1 again, voxel 0.
    tables = torch.tensor([[1, 1, 0]]), torch.tensor([[False, True, False]]), torch.tensor([2, 0])
    query = torch.tensor([1.0, 0.0]).reshape(2, 1, 1)
    key = torch.tensor([0.0, math.log(3.0)]).reshape(2, 1, 1)
    value = torch.tensor([8.0, 4.0]).reshape(2, 1, 1)
    result = attend(query, key, value, *tables)
    # Voxel 0 weighs the keys 1 : 3, voxel 1 weighs them 1 : 1; the repeated slot does not count.
    torch.testing.assert_close(result.flatten(), torch.tensor([5.0, 6.0]))


@pytest.mark.parametrize("set_size", [1, 5, 36])
def test_equals_reference(set_size):
    tables = sets(120, set_size)
    rows = random_rows(tables)
    torch.testing.assert_close(set_attention(*rows, *tables), reference(*rows, *tables))


def test_constant_values_stay():
    tables = sets(60, 7)
    query, key, _ = random_rows(tables)
    ones = torch.ones_like(query)
    torch.testing.assert_close(set_attention(query, key, ones, *tables), ones)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes(dtype):
    tables = sets(60, 7)
    rows = random_rows(tables)
    result = set_attention(*(row.to(dtype) for row in rows), *tables)
    assert result.dtype == dtype
    tolerance = 20 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        result.double(), reference(*rows, *tables), rtol=tolerance, atol=tolerance
    )


def test_gradients_by_differences():
    tables = sets(12, 3)
    rows = [row.requires_grad_() for row in random_rows(tables, heads=1, channels=2)]
    assert gradcheck(lambda *leaves: set_attention(*leaves, *tables), rows)


def test_no_voxels():
    tables = (
        torch.zeros(0, 5, dtype=torch.int64),
        torch.zeros(0, 5, dtype=torch.bool),
        torch.zeros(0, dtype=torch.int64),
    )
    rows = [row.requires_grad_() for row in random_rows(tables)]
    result = set_attention(*rows, *tables)
    assert result.shape == (0, 2, 4)
    result.sum().backward()
    assert rows[0].grad.shape == (0, 2, 4)


def test_compiles_whole():
    tables = sets(60, 7)
    rows = random_rows(tables)
    compiled = torch.compile(set_attention, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*rows, *tables), set_attention(*rows, *tables))


def test_errors():
    tables = sets(10, 3)
    query, key, value = random_rows(tables)
    with pytest.raises(ValueError, match=r"key must be \(.*, 2, 4\) float64, got"):
        set_attention(query, key[:, :1], value, *tables)
    with pytest.raises(TypeError, match=r"value must be .* float64, got .* float32"):
        set_attention(query, key, value.float(), *tables)
    with pytest.raises(TypeError, match=r"repeated must be .* bool, got .* int64"):
        set_attention(query, key, value, tables[0], tables[0], tables[2])
    with pytest.raises(ValueError, match="slot_of_voxel must be"):
        set_attention(query, key, value, tables[0], tables[1], tables[2][:-1])
    with pytest.raises(ValueError, match="one device"):
        set_attention(query, key, value, *tables[:2], tables[2].to("meta"))
