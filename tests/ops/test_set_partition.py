"""DSVT's sets: hand-computed, against the reference, and what every partition obeys."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from voxel_samples import assert_same, random_coords, threads, voxel_sets

from perception3d.ops import set_partition, window_partition
from perception3d.ops.reference.set_partition import set_partition as reference

BOTH = pytest.mark.parametrize("partition", [set_partition, reference])


def cells_zyx(*rows):
    return torch.tensor(rows, dtype=torch.int32).reshape(-1, 3)


@BOTH
def test_orders_by_hand(partition):
    # Rows 0..3 with (x, y, z) = (1, 0, 0), (0, 1, 0), (0, 1, 1), (0, 0, 0).
    cells = cells_zyx((0, 0, 1), (0, 1, 0), (1, 1, 0), (0, 0, 0))
    order, offsets = torch.tensor([2, 0, 3, 1]), torch.tensor([0, 4])
    voxel_of_slot, repeated, slot_of_voxel, set_order, set_offsets = partition(
        cells, order, offsets, 4
    )
    assert voxel_of_slot.tolist() == [[[3, 0, 1, 2]], [[3, 1, 2, 0]]]
    assert not repeated.any()
    assert slot_of_voxel.tolist() == [[1, 2, 3, 0], [3, 1, 2, 0]]
    assert set_order.tolist() == voxel_of_slot[:, 0].tolist()
    assert set_offsets.tolist() == [0, 4]


@BOTH
@pytest.mark.parametrize(
    ("voxels", "set_size", "slots"),
    [
        (1, 3, [[0, 0, 0]]),
        (2, 3, [[0, 0, 1]]),
        (3, 3, [[0, 1, 2]]),
        (4, 3, [[0, 0, 1], [2, 2, 3]]),
        (5, 3, [[0, 0, 1], [2, 3, 4]]),
        (3, 1, [[0], [1], [2]]),
        (7, 3, [[0, 0, 1], [2, 3, 3], [4, 5, 6]]),
    ],
)
def test_slots_by_hand(partition, voxels, set_size, slots):
    cells = cells_zyx(*((0, 0, x) for x in range(voxels)))
    order, offsets = torch.arange(voxels), torch.tensor([0, voxels])
    voxel_of_slot, repeated, slot_of_voxel, set_order, set_offsets = partition(
        cells, order, offsets, set_size
    )
    assert voxel_of_slot.tolist() == [slots, slots]
    flat = [voxel for row in slots for voxel in row]
    assert slot_of_voxel[0].tolist() == [flat.index(voxel) for voxel in range(voxels)]
    wanted = [[t > 0 and row[t] == row[t - 1] for t in range(set_size)] for row in slots]
    assert repeated.tolist() == [wanted, wanted]
    assert set_order.tolist() == [list(range(voxels))] * 2
    assert set_offsets.tolist() == [row[0] for row in slots] + [voxels]


@BOTH
def test_windows_come_one_after_the_other(partition):
    cells = cells_zyx(*((0, 0, x) for x in (0, 1, 2, 0, 1)))
    order, offsets = torch.tensor([3, 4, 0, 1, 2]), torch.tensor([0, 2, 2, 5])  # one is empty
    voxel_of_slot, _, slot_of_voxel, set_order, set_offsets = partition(cells, order, offsets, 2)
    assert voxel_of_slot[0].tolist() == [[3, 4], [0, 0], [1, 2]]
    assert slot_of_voxel[0].tolist() == [2, 4, 5, 0, 1]
    assert set_order[0].tolist() == [3, 4, 0, 1, 2]
    assert set_offsets.tolist() == [0, 2, 3, 5]


@BOTH
def test_no_voxels(partition):
    nothing = torch.zeros(0, dtype=torch.int64)
    for offsets in (torch.tensor([0]), torch.tensor([0, 0, 0])):
        result = partition(cells_zyx(), nothing, offsets, 36)
        shapes = [(2, 0, 36), (2, 0, 36), (2, 0), (2, 0), (1,)]
        assert [tuple(table.shape) for table in result] == shapes
        assert result[-1].item() == 0


@pytest.mark.parametrize("count", [1, 40, 800, 50_000])
@pytest.mark.parametrize(
    ("shape", "window", "set_size"),
    [
        ((1, 468, 468), (1, 12, 12), 36),
        ((32, 100, 100), (32, 24, 24), 48),
        ((1, 360, 360), (1, 30, 30), 90),
        ((4, 30, 30), (4, 30, 30), 7),
        ((1, 1, 40_000), (1, 1, 40_000), 64),
        ((1, 40_000, 1), (1, 40_000, 1), 64),
        ((3, 900_000, 2), (3, 900_000, 2), 5),
    ],
)
def test_equals_reference(count, shape, window, set_size):
    coords = random_coords(count, 2, shape, seed=count)
    shift = tuple(size // 2 for size in window)
    _, order, offsets, cells = window_partition(coords, 2, shape, window, shift)
    wanted = reference(cells, order, offsets, set_size)
    for number in (1, 3):
        with threads(number):
            assert_same(set_partition(cells, order, offsets, set_size), wanted)


@given(voxel_sets(), st.integers(1, 9), st.tuples(*(st.integers(1, 6) for _ in range(3))))
def test_properties(voxels, set_size, window):
    coords, batch_size, shape = voxels
    count = coords.shape[0]
    window_of_voxel, order, offsets, cells = window_partition(
        coords, batch_size, shape, window, (0, 1, 2)
    )
    *tables, set_offsets = set_partition(cells, order, offsets, set_size)
    for voxel_of_slot, repeated, slot_of_voxel, set_order in zip(*tables, strict=True):
        assert not repeated[:, 0].any()  # no set without a true member
        true_members = voxel_of_slot[~repeated]
        assert sorted(true_members.tolist()) == list(range(count))  # each in one set, once
        assert torch.equal(set_order, true_members)
        assert torch.equal(set_offsets.diff(), (~repeated).sum(1))
        assert torch.equal(voxel_of_slot.flatten()[slot_of_voxel], torch.arange(count))
        assert not repeated.flatten()[slot_of_voxel].any()
        assert torch.equal(repeated[:, 1:], voxel_of_slot[:, 1:] == voxel_of_slot[:, :-1])
        same_window = window_of_voxel[voxel_of_slot]
        assert (same_window == same_window[:, :1]).all()
        # Sets of a window are filled evenly.
        for number in range(offsets.shape[0] - 1):
            of_window = (same_window[:, 0] == number).nonzero().flatten()
            members = (~repeated[of_window]).sum(1)
            assert of_window.shape[0] == -(-int(offsets.diff()[number]) // set_size)
            assert members.max() - members.min() <= 1


@given(voxel_sets(), st.integers(0, 10**6))
def test_order_of_voxels_does_not_matter(voxels, seed):
    coords, batch_size, shape = voxels
    shuffle = torch.randperm(coords.shape[0], generator=torch.Generator().manual_seed(seed))

    def sets(rows):
        _, order, offsets, cells = window_partition(rows, batch_size, shape, (2, 3, 4), (0, 0, 0))
        return set_partition(cells, order, offsets, 3)

    plain, shuffled = sets(coords), sets(coords[shuffle])
    assert torch.equal(shuffle[shuffled[0]], plain[0])
    assert torch.equal(shuffled[1], plain[1])
    assert torch.equal(shuffled[2], plain[2][:, shuffle])
    assert torch.equal(shuffle[shuffled[3]], plain[3])
    assert torch.equal(shuffled[4], plain[4])


def test_non_contiguous_tables():
    coords = random_coords(80, 1, (4, 9, 9), seed=1)
    _, order, offsets, cells = window_partition(coords, 1, (4, 9, 9), (4, 5, 5), (0, 0, 0))
    strided = [torch.stack([table, table], dim=-1)[..., 0] for table in (cells, order, offsets)]
    assert not any(table.is_contiguous() for table in strided)
    assert_same(set_partition(*strided, 6), reference(cells, order, offsets, 6))


def test_opcheck():
    coords = random_coords(80, 1, (4, 9, 9), seed=1)
    _, order, offsets, cells = window_partition(coords, 1, (4, 9, 9), (4, 5, 5), (0, 0, 0))
    torch.library.opcheck(torch.ops.perception3d.set_partition, (cells, order, offsets, 6))


def test_compiles_whole():
    def filled(coords):
        _, order, offsets, cells = window_partition(coords, 1, (4, 9, 9), (4, 5, 5), (0, 0, 0))
        return (~set_partition(cells, order, offsets, 6)[1]).sum()

    coords = random_coords(80, 1, (4, 9, 9), seed=1)
    compiled = torch.compile(filled, fullgraph=True, backend="aot_eager")
    assert compiled(coords) == 2 * coords.shape[0]


def test_errors():
    cells, order, offsets = (
        cells_zyx((0, 0, 0), (0, 0, 1)),
        torch.tensor([0, 1]),
        torch.tensor([0, 2]),
    )
    with pytest.raises(ValueError, match="set_size must be >= 1, got 0"):
        set_partition(cells, order, offsets, 0)
    with pytest.raises(TypeError, match=r"cell_in_window must be \(N, 3\) int32, got .* int64"):
        set_partition(cells.long(), order, offsets, 2)
    with pytest.raises(ValueError, match=r"order must be \(2,\) int64, got \(1,\) int64"):
        set_partition(cells, order[:1], offsets, 2)
    with pytest.raises(ValueError, match="offsets must be"):
        set_partition(cells, order, offsets[:0], 2)
    with pytest.raises(ValueError, match="one device"):
        set_partition(cells, order, offsets.to("meta"), 2)
    with pytest.raises(
        RuntimeError, match=r"order must be a permutation of 0\.\.1, got 0 in row 1"
    ):
        set_partition(cells, torch.tensor([0, 0]), offsets, 2)
    with pytest.raises(RuntimeError, match="got 5 in row 0"):
        set_partition(cells, torch.tensor([5, 0]), offsets, 2)
    with pytest.raises(RuntimeError, match="offsets must run from 0 to 2, got 0 to 1"):
        set_partition(cells, order, torch.tensor([0, 1]), 2)
    with pytest.raises(RuntimeError, match="offsets must ascend, got 3 before 2"):
        set_partition(cells, order, torch.tensor([0, 3, 2]), 2)
