"""Neighbours of voxels: hand-computed, any odd kernel, lines of 64 cells and their ends."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from voxel_samples import random_coords, threads, voxel_sets

from perception3d.ops import subm_index
from perception3d.ops.reference.subm_index import subm_index as reference

BOTH = pytest.mark.parametrize("index", [subm_index, reference])
KERNELS = [(3, 3, 3), (1, 1, 13), (1, 13, 1), (13, 1, 1), (1, 1, 21), (1, 1, 1), (5, 3, 1)]


def rows(*values):
    return torch.tensor(values, dtype=torch.int32).reshape(-1, 4)


@BOTH
def test_by_hand(index):
    coords = rows((0, 0, 1, 2), (0, 0, 1, 1), (1, 0, 1, 3), (0, 0, 0, 3), (0, 0, 1, 4))
    neighbours = index(coords, 2, (1, 2, 5), (1, 3, 3))
    assert neighbours.dtype == torch.int32
    assert neighbours.tolist() == [
        [-1, -1, 3, 1, 0, -1, -1, -1, -1],
        [-1, -1, -1, -1, 1, 0, -1, -1, -1],
        [-1, -1, -1, -1, 2, -1, -1, -1, -1],  # alone in the second frame
        [-1, -1, -1, -1, 3, -1, 0, -1, 4],
        [3, -1, -1, -1, 4, -1, -1, -1, -1],
    ]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("count", [0, 1, 500, 20_000])
@pytest.mark.parametrize("shape", [(1, 300, 200), (40, 24, 26), (130, 5, 129), (33, 480, 480)])
def test_equals_reference(kernel, count, shape):
    coords = random_coords(count, 2, shape, seed=count)
    wanted = reference(coords, 2, shape, kernel)
    for number in (1, 3):
        with threads(number):
            neighbours = subm_index(coords, 2, shape, kernel)
        assert neighbours.dtype == torch.int32
        assert torch.equal(neighbours, wanted)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("length", [3, 31, 63, 65, 201])
def test_windows_across_the_ends_of_lines(axis, length):
    # Lines hold 64 cells; windows of more than 63 cells are cut the other way.
    place = torch.tensor([0, 1, 31, 62, 63, 64, 65, 100, 127, 128, 190, 191, 192, 199])
    coords = torch.zeros(place.shape[0], 4, dtype=torch.int32)
    coords[:, 1 + axis] = place
    shape, kernel = [1, 1, 1], [1, 1, 1]
    shape[axis], kernel[axis] = 200, length
    neighbours = subm_index(coords, 1, shape, kernel)
    assert torch.equal(neighbours, reference(coords, 1, shape, kernel))


def test_full_grid():
    z, y, x = torch.meshgrid(torch.arange(3), torch.arange(4), torch.arange(130), indexing="ij")
    coords = torch.stack([torch.zeros_like(z), z, y, x], dim=-1).reshape(-1, 4).int()
    neighbours = subm_index(coords, 1, (3, 4, 130), (3, 3, 3))
    assert torch.equal(neighbours, reference(coords, 1, (3, 4, 130), (3, 3, 3)))
    inner = (neighbours >= 0).all(dim=1).sum()
    assert inner == 1 * 2 * 128


def test_cell_numbers_beyond_32_bits():
    shape, batch_size = (2**20, 2**20, 2**19), 4  # 2^61 cells
    corner = [2**20 - 1, 2**20 - 1, 2**19 - 1]
    coords = rows([3, *corner], [0, 0, 0, 0], [3, *corner[:2], corner[2] - 1], [2, *corner])
    wanted = torch.full((4, 27), -1, dtype=torch.int32)
    wanted[:, 13] = torch.arange(4)
    wanted[0, 12], wanted[2, 14] = 2, 0
    assert torch.equal(subm_index(coords, batch_size, shape, (3, 3, 3)), wanted)


def test_non_contiguous_coords():
    coords = random_coords(60, 2, (4, 6, 8), seed=3)
    striped = coords.repeat_interleave(2, dim=1)[:, ::2]
    assert not striped.is_contiguous()
    wanted = subm_index(coords, 2, (4, 6, 8), (3, 3, 3))
    assert torch.equal(subm_index(striped, 2, (4, 6, 8), (3, 3, 3)), wanted)


@given(voxel_sets(), st.tuples(*(st.sampled_from([1, 3, 5]) for _ in range(3))))
def test_table_is_symmetric_and_finds_all(voxels, kernel):
    coords, batch_size, shape = voxels
    neighbours = subm_index(coords, batch_size, shape, kernel).long()
    row, tap = (neighbours >= 0).nonzero(as_tuple=True)
    other = neighbours[row, tap]
    assert torch.equal(neighbours[other, neighbours.shape[1] - 1 - tap], row)
    step = coords[other].long() - coords[row].long()
    places = (tap // (kernel[1] * kernel[2]), tap // kernel[2] % kernel[1], tap % kernel[2])
    steps = torch.stack(places, dim=1)
    assert torch.equal(step[:, 1:], steps - torch.tensor(kernel) // 2)
    assert (step[:, 0] == 0).all()
    far = (coords[:, None, 1:] - coords[None, :, 1:]).abs() > torch.tensor(kernel) // 2
    near = ~far.any(dim=2) & (coords[:, None, 0] == coords[None, :, 0])
    assert near.sum() == row.shape[0]


@given(voxel_sets(), st.integers(0, 10**6))
def test_order_of_voxels_only_renames(voxels, seed):
    coords, batch_size, shape = voxels
    shuffle = torch.randperm(coords.shape[0], generator=torch.Generator().manual_seed(seed))
    plain = subm_index(coords, batch_size, shape, (3, 3, 3)).long()
    shuffled = subm_index(coords[shuffle], batch_size, shape, (3, 3, 3)).long()
    renamed = torch.where(shuffled >= 0, torch.cat([shuffle, shuffle[:1]])[shuffled], -1)
    assert torch.equal(renamed, plain[shuffle])


def test_opcheck():
    coords = random_coords(30, 2, (4, 6, 8), seed=5)
    arguments = (coords, 2, [4, 6, 8], [3, 1, 5])
    torch.library.opcheck(torch.ops.perception3d.subm_index, arguments)


def test_compiles_whole():
    coords = random_coords(30, 2, (4, 6, 8), seed=6)

    def count(rows):
        return (subm_index(rows, 2, (4, 6, 8), (3, 3, 3)) >= 0).sum(1)

    compiled = torch.compile(count, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(coords), count(coords))


def test_errors():
    coords = rows((0, 0, 0, 0), (0, 1, 2, 3))
    shape, kernel = (2, 3, 4), (3, 3, 3)
    with pytest.raises(TypeError, match=r"coords must be \(N, 4\) int32, got \(2, 4\) int64"):
        subm_index(coords.long(), 1, shape, kernel)
    with pytest.raises(ValueError, match=r"coords must be \(N, 4\) int32, got \(2, 3\) int32"):
        subm_index(coords[:, 1:], 1, shape, kernel)
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        subm_index(coords, 0, shape, kernel)
    for wrong in [(2, 3), (2, 0, 4), (2**21, 2**21, 2**20)]:
        with pytest.raises(ValueError, match="spatial_shape must be three cell counts"):
            subm_index(coords, 1, wrong, kernel)
    for wrong in [(3, 3), (3, 2, 3), (3, -1, 3), (33, 33, 33)]:
        with pytest.raises(ValueError, match="kernel must be three odd sizes"):
            subm_index(coords, 1, shape, wrong)
    for outside in [(1, 0, 0, 0), (-1, 0, 0, 0), (0, 2, 0, 0), (0, 0, -1, 0), (0, 0, 0, 4)]:
        with pytest.raises(RuntimeError, match=r"coords must lie in a grid of 2 x 3 x 4 .* row 2"):
            subm_index(torch.cat([coords, rows(outside)]), 1, shape, kernel)
    with pytest.raises(RuntimeError, match=r"must be unique, .* \(0, 1, 2, 3\) in rows 1 and 3"):
        subm_index(torch.cat([coords, rows((0, 0, 1, 1)), coords[1:]]), 1, shape, kernel)
