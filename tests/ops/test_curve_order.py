"""Curves through the grid and the order of voxels along them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from voxel_samples import assert_same, random_coords, threads, voxel_sets

from perception3d.ops import curve_index, curve_order
from perception3d.ops.reference import curve_order as reference

native = torch.ops.perception3d
GOLDEN = Path(os.environ.get("P3D_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
RANKS = [1, 2, 3, 4, 5, 9, 10, 11, 16, 20]


def cube(rank):
    """All cells, rows (0, z, y, x)."""
    cells = torch.cartesian_prod(*[torch.arange(1 << rank)] * 3)
    return torch.cat([cells.new_zeros(len(cells), 1), cells], dim=1).int()


@pytest.mark.parametrize("index", [curve_index, reference.curve_index])
@pytest.mark.parametrize(
    ("rank", "cell", "place"),
    [
        *((1, (0, 0, 1), 1), (2, (0, 1, 0), 1), (3, (1, 0, 0), 1)),
        *((9, (1, 0, 0), 1), (9, (0, 0, 1), 3), (9, (0, 1, 0), 7)),
        *((rank, (0, 0, 0), 0) for rank in RANKS),
        *((rank, ((1 << rank) - 1, 0, 0), (1 << 3 * rank) - 1) for rank in RANKS),
    ],
)
def test_known_places(index, rank, cell, place):
    coords = torch.tensor([[7, *cell]], dtype=torch.int32)
    assert index(coords, rank).tolist() == [place]
    shifted = coords - torch.tensor([0, 5, 5, 5], dtype=torch.int32)
    assert index(shifted, rank, shift=5).tolist() == [place]


@pytest.mark.parametrize("index", [curve_index, reference.curve_index])
def test_z_order_by_hand(index):
    coords = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0], [0, 3, 0, 2]]).int()
    assert index(coords, 2, curve="z_order").tolist() == [1, 2, 4, 0b101100 | 0b1000]


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_the_curve_fills_the_cube_step_by_step(rank):
    coords = cube(rank)
    order, inverse, offsets = curve_order(coords, 1, rank)
    assert torch.equal(curve_index(coords, rank), inverse)
    assert offsets.tolist() == [0, 8**rank]
    steps = coords[order].diff(dim=0).abs()
    assert torch.equal(steps.sum(1), torch.ones(8**rank - 1).int())


@pytest.mark.parametrize("curve", ["hilbert", "z_order"])
@pytest.mark.parametrize("rank", RANKS)
def test_equals_reference(rank, curve):
    generator = torch.Generator().manual_seed(rank)
    shift = min(3, (1 << rank) - 1)
    coords = torch.randint(0, (1 << rank) - shift, (3001, 4), generator=generator).int()
    coords[:, 0] %= 5
    coords[:2, 1:] = torch.tensor([[0], [(1 << rank) - 1 - shift]])  # the corners
    ours = curve_index(coords, rank, shift=shift, curve=curve)
    assert_same([ours], [reference.curve_index(coords, rank, shift=shift, curve=curve)])
    tables = curve_order(coords, 7, rank, shift=shift, curve=curve)  # the last frames are empty
    assert_same(tables, reference.curve_order(coords, 7, rank, shift=shift, curve=curve))


def test_keys_longer_than_a_word():
    """60 bits of index, 31 of the frame, 17 of the row: the sort takes several rounds."""
    generator = torch.Generator().manual_seed(0)
    coords = torch.randint(0, 1 << 20, (70_000, 4), generator=generator).int()
    coords[:, 0] = coords[:, 0] % 1000 * 2000
    coords[::7, 1:] = coords[0, 1:]  # many voxels in one cell
    wanted = reference.curve_order(coords, 2_000_000, 20)
    for count in (1, 3):
        with threads(count):
            assert_same(curve_order(coords, 2_000_000, 20), wanted)


@given(voxel_sets(), st.integers(4, 12), st.integers(0, 4))
def test_each_frame_on_its_own(voxels, rank, shift):
    coords, batch_size, _ = voxels
    order, inverse, offsets = curve_order(coords, batch_size, rank, shift=shift)
    index = curve_index(coords, rank, shift=shift)
    assert torch.equal(order[inverse], torch.arange(len(coords)))
    for frame in range(batch_size):
        rows = order[offsets[frame] : offsets[frame + 1]]
        assert (coords[rows, 0] == frame).all()
        assert (index[rows].diff() > 0).all()  # a cell holds one voxel


def test_non_contiguous_and_empty():
    coords = random_coords(200, 2, (16, 16, 16), seed=0)
    wide = torch.cat([coords, coords], dim=1)[:, :4]
    assert not wide.is_contiguous()
    assert_same(curve_order(wide, 2, 4), curve_order(coords, 2, 4))
    nothing = torch.zeros(0, 4, dtype=torch.int32)
    assert_same(curve_order(nothing, 2, 9), reference.curve_order(nothing, 2, 9))
    assert curve_order(nothing, 0, 9)[2].tolist() == [0]
    assert curve_index(nothing, 9).shape == (0,)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["hilbert_rank3", "hilbert_rank5", "hilbert_rank9"])
def test_golden_index(name):
    path = GOLDEN / "voxel_mamba" / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"no golden vectors at {path} (set P3D_GOLDEN)")
    with np.load(path) as arrays:
        coords = torch.from_numpy(arrays["in.coords"].astype(np.int32))
        wanted = torch.from_numpy(arrays["out.index"].astype(np.int64))
    assert torch.equal(curve_index(coords, int(name[-1])), wanted)


def test_opcheck():
    coords = random_coords(50, 2, (8, 8, 8), seed=1)
    torch.library.opcheck(native.curve_index, (coords, 4, 1, True))
    torch.library.opcheck(native.curve_order, (coords, 2, 4, 1, False))


def test_compiles_whole():
    coords = random_coords(50, 2, (8, 8, 8), seed=1)
    compiled = torch.compile(
        lambda rows: curve_order(rows, 2, 4), fullgraph=True, backend="aot_eager"
    )
    assert_same(compiled(coords), curve_order(coords, 2, 4))


def test_errors():
    coords = torch.tensor([[0, 1, 2, 3], [1, 7, 7, 7]], dtype=torch.int32)
    with pytest.raises(TypeError, match=r"curve_index: coords must be \(N, 4\) int32"):
        curve_index(coords.long(), 3)
    with pytest.raises(ValueError, match=r"curve_order: coords must be \(N, 4\) int32"):
        curve_order(coords[:, :3], 2, 3)
    for rank in (0, 21):
        with pytest.raises(ValueError, match=rf"rank must be in 1\.\.20, got {rank}"):
            curve_index(coords, rank)
    with pytest.raises(ValueError, match="curve must be 'hilbert' or 'z_order', got 'peano'"):
        curve_order(coords, 2, 3, curve="peano")
    with pytest.raises(ValueError, match="shift must fit 32 bits"):
        curve_index(coords, 3, shift=2**31)
    with pytest.raises(ValueError, match="batch_size must be >= 0, got -1"):
        curve_order(coords, -1, 3)
    with pytest.raises(RuntimeError, match=r"in 0\.\.7, got .* \(7, 7, 7\) with shift 1 in row 1"):
        curve_index(coords, 3, shift=1)
    with pytest.raises(RuntimeError, match=r"in 0\.\.7, got .* \(1, 2, 3\) with shift -2 in row 0"):
        curve_order(coords, 2, 3, shift=-2)
    with pytest.raises(RuntimeError, match=r"frames must be in 0\.\.0, got 1 in row 1"):
        curve_order(coords, 1, 3)
    extreme = torch.full((1, 4), 2**31 - 1, dtype=torch.int32)
    with pytest.raises(RuntimeError, match="coords plus the shift must be in"):
        curve_index(extreme, 20, shift=2**31 - 1)
