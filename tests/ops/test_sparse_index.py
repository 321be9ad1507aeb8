"""Outputs and pairs of strided convolutions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from voxel_samples import assert_same, random_coords, threads, voxel_sets

from perception3d.ops import sparse_index
from perception3d.ops.reference.sparse_index import sparse_index as reference
from perception3d.ops.sparse_index import output_shape

BOTH = pytest.mark.parametrize("index", [sparse_index, reference])


def rows(*cells):
    return torch.tensor(cells, dtype=torch.int32).reshape(-1, 4)


@BOTH
def test_by_hand(index):
    # Kernel 3, stride 2, padding 1: output o sees the cells 2 o - 1, 2 o, 2 o + 1.
    coords = rows((0, 0, 0, 5), (0, 0, 0, 0), (0, 0, 0, 3))
    out_coords, inputs, outputs = index(coords, 1, (1, 1, 6), (1, 1, 3), (1, 1, 2), (0, 0, 1))
    assert out_coords[:, 3].tolist() == [0, 1, 2]
    assert inputs.tolist() == [[-1, 1, -1], [-1, -1, 2], [2, -1, 0]]
    assert outputs.tolist() == [[-1, -1, 2], [-1, 0, -1], [2, -1, 1]]


SETTINGS = [
    ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
    ((3, 1, 1), (2, 1, 1), (0, 0, 0)),
    ((5, 5, 5), (4, 4, 4), (2, 2, 2)),
    ((2, 2, 2), (2, 2, 2), (0, 0, 0)),
    ((1, 1, 1), (2, 3, 2), (0, 0, 0)),
    ((2, 3, 4), (1, 2, 5), (1, 0, 3)),
]


@pytest.mark.parametrize(("kernel", "stride", "padding"), SETTINGS)
@pytest.mark.parametrize("count", [0, 1, 40, 900])
def test_equals_reference(kernel, stride, padding, count):
    # 150 cells along x: lines hold 64.
    shape = (5, 9, 150)
    coords = random_coords(count, 3, shape, seed=count)
    wanted = reference(coords, 3, shape, kernel, stride, padding)
    for number in (1, 3):
        with threads(number):
            assert_same(sparse_index(coords, 3, shape, kernel, stride, padding), wanted)


sizes = st.tuples(*(st.integers(1, 4) for _ in range(3)))


@given(voxel_sets(), sizes, sizes, st.tuples(*(st.integers(0, 3) for _ in range(3))))
def test_any_geometry(voxels, kernel, stride, padding):
    coords, batch_size, shape = voxels
    small = any(n + 2 * p < k for n, p, k in zip(shape, padding, kernel, strict=True))
    if small:
        with pytest.raises(ValueError, match="is too small for kernel"):
            sparse_index(coords, batch_size, shape, kernel, stride, padding)
        return
    tables = sparse_index(coords, batch_size, shape, kernel, stride, padding)
    assert_same(tables, reference(coords, batch_size, shape, kernel, stride, padding))
    out_coords, inputs, outputs = tables
    limit = torch.tensor([batch_size, *output_shape(shape, kernel, stride, padding)])
    assert ((out_coords >= 0) & (out_coords < limit)).all()
    assert (inputs >= 0).any(1).all()  # every output sees a voxel
    out, tap = (inputs >= 0).nonzero(as_tuple=True)
    assert torch.equal(outputs[inputs[out, tap].long(), tap], out.int())
    assert (inputs >= 0).sum() == (outputs >= 0).sum()


def test_order_of_voxels_only_renames():
    shape, setting = (4, 20, 20), SETTINGS[0]
    coords = random_coords(200, 2, shape, seed=3)
    shuffle = torch.randperm(coords.shape[0], generator=torch.Generator().manual_seed(0))
    plain = sparse_index(coords, 2, shape, *setting)
    other = sparse_index(coords[shuffle], 2, shape, *setting)
    assert torch.equal(plain[0], other[0])
    assert torch.equal(plain[2][shuffle], other[2])


def test_cell_numbers_beyond_32_bits():
    shape, batch_size = (2**20, 2**20, 2**19), 4  # 2^61 cells
    corner = [2**20 - 1, 2**20 - 1, 2**19 - 1]
    coords = rows((3, *corner), (0, 0, 0, 0))
    out_coords, inputs, _ = sparse_index(coords, batch_size, shape, (1, 1, 1), (1, 1, 1), (0, 0, 0))
    assert out_coords.tolist() == [[0, 0, 0, 0], [3, *corner]]
    assert inputs.tolist() == [[1], [0]]


def test_non_contiguous_coords():
    coords = random_coords(60, 2, (4, 6, 8), seed=3)
    striped = coords.repeat_interleave(2, dim=1)[:, ::2]
    assert not striped.is_contiguous()
    setting = (2, (4, 6, 8), *SETTINGS[0])
    assert_same(sparse_index(striped, *setting), sparse_index(coords, *setting))


def test_opcheck():
    coords = random_coords(30, 2, (4, 6, 8), seed=5)
    arguments = (coords, 2, [4, 6, 8], [3, 3, 3], [2, 2, 2], [1, 1, 1])
    torch.library.opcheck(torch.ops.perception3d.sparse_index, arguments)


def test_compiles_whole():
    coords = random_coords(30, 2, (4, 6, 8), seed=6)

    def count(cells):
        return (sparse_index(cells, 2, (4, 6, 8), *SETTINGS[0])[1] >= 0).sum()

    compiled = torch.compile(count, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(coords), count(coords))


def test_errors():
    coords = rows((0, 0, 0, 0), (0, 1, 2, 3))
    shape, kernel, one, none = (2, 3, 4), (2, 2, 2), (1, 1, 1), (0, 0, 0)
    with pytest.raises(TypeError, match=r"coords must be \(N, 4\) int32, got \(2, 4\) int64"):
        sparse_index(coords.long(), 1, shape, kernel, one, none)
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        sparse_index(coords, 0, shape, kernel, one, none)
    with pytest.raises(ValueError, match="stride must be three sizes >= 1"):
        sparse_index(coords, 1, shape, kernel, (1, 0, 1), none)
    with pytest.raises(ValueError, match="padding must be three sizes >= 0"):
        sparse_index(coords, 1, shape, kernel, one, (0, -1, 0))
    with pytest.raises(ValueError, match="kernel must have at most 32768 taps"):
        sparse_index(coords, 1, (99, 99, 99), (33, 33, 33), one, none)
    with pytest.raises(ValueError, match=r"too many \(2\^62\)"):
        sparse_index(coords, 1, (2**21, 2**21, 2**20), one, one, none)
    for outside in [(1, 0, 0, 0), (-1, 0, 0, 0), (0, 2, 0, 0), (0, 0, -1, 0), (0, 0, 0, 4)]:
        with pytest.raises(RuntimeError, match=r"coords must lie in a grid of 2 x 3 x 4 .* row 2"):
            sparse_index(torch.cat([coords, rows(outside)]), 1, shape, kernel, one, none)
    repeated = torch.cat([coords, rows((0, 0, 1, 1)), coords[1:]])
    with pytest.raises(RuntimeError, match=r"must be unique, .* \(0, 1, 2, 3\) in rows 1 and 3"):
        sparse_index(repeated, 1, shape, kernel, one, none)
