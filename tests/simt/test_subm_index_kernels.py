"""The CUDA kernels of subm_index on the interpreter."""

import pytest
import torch
from simt_library import load_simt_library, schedule
from sparse_samples import random_voxels

from perception3d.ops.reference.subm_index import subm_index as reference

simt = load_simt_library()


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 1, 13), (1, 13, 1), (1, 1, 1), (5, 3, 3)])
@pytest.mark.parametrize("shape", [(1, 30, 20), (6, 8, 7)])
def test_equals_reference(kernel, shape):
    coords = random_voxels(150, 2, shape, seed=1)
    neighbours = simt.subm_index(coords, 2, shape, kernel)
    assert torch.equal(neighbours, reference(coords, 2, shape, kernel))


@pytest.mark.parametrize("count", [0, 1, 16, 17, 300])
def test_counts(count):
    coords = random_voxels(400, 3, (4, 9, 9), seed=count)[:count]
    neighbours = simt.subm_index(coords, 3, (4, 9, 9), (3, 3, 3))
    assert torch.equal(neighbours, reference(coords, 3, (4, 9, 9), (3, 3, 3)))


def test_order_of_threads_does_not_matter():
    coords = random_voxels(200, 1, (4, 8, 8), seed=2)
    wanted = simt.subm_index(coords, 1, (4, 8, 8), (3, 3, 3))
    for number in (1, 2):
        with schedule(number):
            assert torch.equal(simt.subm_index(coords, 1, (4, 8, 8), (3, 3, 3)), wanted)


def test_cell_numbers_beyond_32_bits():
    shape = (2**20, 2**20, 2**17)
    corner = [2**20 - 1, 2**20 - 1, 2**17 - 1]
    coords = torch.tensor([[3, *corner], [0, 0, 0, 0], [3, *corner[:2], corner[2] - 1]]).int()
    neighbours = simt.subm_index(coords, 4, shape, (1, 1, 3))
    assert neighbours.tolist() == [[2, 0, -1], [-1, 1, -1], [-1, 2, 0]]


def test_refuses_more_cells_than_slots_can_number():
    coords = torch.arange(5, dtype=torch.int32)[:, None].repeat(1, 4) % 4
    with pytest.raises(RuntimeError, match="number of cells in all frames times the number of"):
        simt.subm_index(coords, 4, (2**20, 2**20, 2**19), (1, 1, 3))


def test_debug_build_names_what_is_wrong():
    coords = random_voxels(20, 1, (4, 4, 4), seed=3)
    outside = torch.cat([coords, torch.tensor([[0, 0, 4, 0]], dtype=torch.int32)])
    with pytest.raises(RuntimeError, match="subm_index: coords outside the grid"):
        simt.subm_index(outside, 1, (4, 4, 4), (3, 3, 3))
    with pytest.raises(RuntimeError, match="subm_index: voxels in the cell of another"):
        simt.subm_index(torch.cat([coords, coords[5:6]]), 1, (4, 4, 4), (3, 3, 3))
