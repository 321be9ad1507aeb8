"""The CUDA kernels of sparse_index on the interpreter."""

import pytest
import torch
from simt_library import schedule
from sparse_samples import STRIDED, random_voxels

from perception3d.ops.reference.sparse_index import sparse_index as reference

SHAPE = (6, 9, 8)


def assert_same(ours, wanted):
    for got, want in zip(ours, wanted, strict=True):
        assert got.dtype == want.dtype == torch.int32
        assert torch.equal(got, want)


@pytest.mark.parametrize("setting", STRIDED)
@pytest.mark.parametrize("count", [0, 1, 200])
def test_equals_reference(kernels, setting, count):
    coords = random_voxels(count, 3, SHAPE, seed=count)
    tables = kernels.sparse_index(coords, 3, SHAPE, *setting)
    assert_same(tables, reference(coords, 3, SHAPE, *setting))


def test_more_outputs_than_voxels_and_taps_without_any(kernels):
    coords = random_voxels(3, 2, SHAPE, seed=4)
    setting = ((3, 3, 3), (1, 1, 1), (1, 1, 1))
    out_coords, inputs, outputs = kernels.sparse_index(coords, 2, SHAPE, *setting)
    assert out_coords.shape[0] > 3
    assert_same((out_coords, inputs, outputs), reference(coords, 2, SHAPE, *setting))
    # One voxel in the first cell, and the stride as large as the kernel: one tap.
    first = torch.zeros(1, 4, dtype=torch.int32)
    found = kernels.sparse_index(first, 1, SHAPE, (2, 2, 2), (2, 2, 2), (0, 0, 0))
    assert found[1].tolist() == found[2].tolist() == [[0] + [-1] * 7]


def test_voxels_that_no_output_sees(kernels):
    # z = 6 of 7: kernel 2, stride 4 looks at z = 0, 1 and 4, 5.
    coords = torch.tensor([[0, 6, 0, 0], [0, 6, 1, 1]], dtype=torch.int32)
    found = kernels.sparse_index(coords, 1, (7, 2, 2), (2, 1, 1), (4, 1, 1), (0, 0, 0))
    assert [tuple(table.shape) for table in found] == [(0, 4), (0, 2), (2, 2)]
    assert (found[2] == -1).all()


def test_order_of_threads_does_not_matter(interpreter):
    coords = random_voxels(150, 2, SHAPE, seed=2)
    wanted = interpreter.sparse_index(coords, 2, SHAPE, *STRIDED[0])
    for number in (1, 2):
        with schedule(number):
            assert_same(interpreter.sparse_index(coords, 2, SHAPE, *STRIDED[0]), wanted)


def test_cell_numbers_beyond_32_bits(kernels):
    shape, one = (2**20, 2**20, 2**19), (1, 1, 1)  # 2^61 cells
    corner = [2**20 - 1, 2**20 - 1, 2**19 - 1]
    coords = torch.tensor([[3, *corner], [0, 0, 0, 0]], dtype=torch.int32)
    out_coords, inputs, _ = kernels.sparse_index(coords, 4, shape, one, one, (0, 0, 0))
    assert out_coords.tolist() == [[0, 0, 0, 0], [3, *corner]]
    assert inputs.tolist() == [[1], [0]]


def test_largest_paddings(kernels):
    large = 2**31 - 1
    coords = torch.tensor([[0, 0, 0, large - 1]], dtype=torch.int32)
    setting = ((1, 1, 1), (1, 1, large), (0, 0, large))
    out_coords, inputs, outputs = kernels.sparse_index(coords, 1, (1, 1, large), *setting)
    assert out_coords.shape == (0, 4)  # 2 large - 1 is no multiple of large
    coords[0, 3] = 0
    out_coords, inputs, outputs = kernels.sparse_index(coords, 1, (1, 1, large), *setting)
    assert out_coords.tolist() == [[0, 0, 0, 1]]
    assert inputs.tolist() == outputs.tolist() == [[0]]


def test_debug_build_names_what_is_wrong(interpreter):
    coords = random_voxels(20, 1, (4, 4, 4), seed=3)
    outside = torch.cat([coords, torch.tensor([[0, 0, 4, 0]], dtype=torch.int32)])
    with pytest.raises(RuntimeError, match="sparse_index: coords outside the grid"):
        interpreter.sparse_index(outside, 1, (4, 4, 4), *STRIDED[0])
    with pytest.raises(RuntimeError, match="sparse_index: voxels in the cell of another"):
        interpreter.sparse_index(torch.cat([coords, coords[5:6]]), 1, (4, 4, 4), *STRIDED[0])
