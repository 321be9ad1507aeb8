"""The CUDA kernels of segment_index, window_partition and set_partition on the interpreter."""

import pytest
import torch
from simt_library import schedule

from perception3d.ops.reference.segment_index import segment_index as index_reference
from perception3d.ops.reference.set_partition import set_partition as set_reference
from perception3d.ops.reference.window_partition import window_partition as window_reference


def assert_all_equal(got, wanted):
    assert len(got) == len(wanted)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def voxels(count, shape, batch_size=2, seed=0):
    """Distinct cells in no order, rows b, z, y, x."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.stack(
        [torch.randint(0, size, (count,), generator=generator) for size in (batch_size, *shape)], 1
    )
    cells = cells.unique(dim=0).int()
    return cells[torch.randperm(cells.shape[0], generator=generator)]


@pytest.mark.parametrize(
    ("rows", "segments"), [(0, 0), (0, 3), (1, 1), (300, 7), (1000, 2000), (513, 1)]
)
def test_segment_index(kernels, rows, segments):
    generator = torch.Generator().manual_seed(rows)
    ids = torch.randint(-1, max(segments, 1), (rows,), generator=generator)
    assert_all_equal(kernels.segment_index(ids, segments), index_reference(ids, segments))


def test_segment_index_of_rows_in_no_segment(interpreter):
    ids = torch.tensor([-1, -5, -(2**62)])
    assert_all_equal(interpreter.segment_index(ids, 2), index_reference(ids, 2))
    with pytest.raises(RuntimeError, match=r"segment_of_row must be in 0\.\.1, got 2"):
        interpreter.segment_index(torch.tensor([0, 2]), 2)


@pytest.mark.parametrize("x_slowest", [True, False])
@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 5, 3), (-1, -7, 100)])
@pytest.mark.parametrize("count", [0, 1, 700])
def test_window_partition(kernels, count, shift, x_slowest):
    shape, window = (3, 40, 30), (2, 7, 12)
    coords = voxels(count, shape)
    got = kernels.window_partition(coords, 2, list(shape), list(window), list(shift), x_slowest)
    axis_order = "xyz" if x_slowest else "zyx"
    wanted = window_reference(coords, 2, shape, window, shift, axis_order=axis_order)
    assert_all_equal(got, wanted)


def test_window_numbers_beyond_32_bits(kernels):
    shape = (2**12, 2**20, 2**20)
    coords = voxels(300, shape, batch_size=9)
    got = kernels.window_partition(coords, 9, list(shape), [1, 1, 1], [0, 0, 0], True)
    assert_all_equal(got, window_reference(coords, 9, shape, (1, 1, 1), (0, 0, 0)))
    with pytest.raises(RuntimeError, match="windows of all frames must be fewer than 2"):
        kernels.window_partition(coords, 9, [2**31 - 1] * 3, [1, 1, 1], [0, 0, 0], True)


def test_a_voxel_outside_the_grid_is_reported(interpreter):
    coords = torch.tensor([[0, 0, 4, 0]], dtype=torch.int32)
    with pytest.raises(RuntimeError, match=r"coords must be in 0\.\.3, got 4"):
        interpreter.window_partition(coords, 1, [1, 4, 4], [1, 2, 2], [0, 0, 0], True)


@pytest.mark.parametrize("set_size", [1, 5, 36, 400])
@pytest.mark.parametrize("window", [(1, 7, 12), (4, 40, 30), (2, 3, 3)])
def test_set_partition(kernels, window, set_size):
    shape = (4, 40, 30)
    coords = voxels(600, shape)
    _, order, offsets, cells = window_reference(coords, 2, shape, window, (0, 3, 2))
    got = kernels.set_partition(cells, order, offsets, set_size)
    assert_all_equal(got, set_reference(cells, order, offsets, set_size))


def test_equal_cells_keep_their_order(kernels):
    cells = torch.zeros(40, 3, dtype=torch.int32)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    offsets = torch.tensor([0, 0, 25, 25, 40, 40])
    got = kernels.set_partition(cells, order, offsets, 4)
    assert_all_equal(got, set_reference(cells, order, offsets, 4))


@pytest.mark.parametrize("far", [1000, 2**18])
def test_cells_of_any_sign_and_size(kernels, far):
    generator = torch.Generator().manual_seed(far)
    cells = torch.randint(-far, far, (90, 3), generator=generator, dtype=torch.int32)
    order, offsets = torch.arange(90), torch.tensor([0, 50, 90])
    got = kernels.set_partition(cells, order, offsets, 7)
    assert_all_equal(got, set_reference(cells, order, offsets, 7))


def test_cells_that_no_key_can_hold_are_refused(kernels):
    cells = torch.tensor([[-(2**31)] * 3, [2**31 - 1] * 3], dtype=torch.int32)
    with pytest.raises(RuntimeError, match="windows times cells must be fewer than 2"):
        kernels.set_partition(cells, torch.arange(2), torch.tensor([0, 2]), 4)


@pytest.mark.parametrize("windows", [0, 3])
def test_no_voxels(kernels, windows):
    cells, nothing = torch.zeros(0, 3, dtype=torch.int32), torch.zeros(0, dtype=torch.int64)
    got = kernels.set_partition(cells, nothing, torch.zeros(windows + 1, dtype=torch.int64), 4)
    wanted = [(2, 0, 4), (2, 0, 4), (2, 0), (2, 0), (1,)]
    assert [tuple(table.shape) for table in got] == wanted
    assert got[4].tolist() == [0]


def test_no_order_of_threads_changes_anything(interpreter):
    coords = voxels(500, (4, 40, 30))
    ids = coords[:, 1].long()
    results = []
    for number in (0, 1, 2):
        with schedule(number):
            index = interpreter.segment_index(ids, 4)
            windows = interpreter.window_partition(
                coords, 2, [4, 40, 30], [4, 9, 9], [0, 1, 2], True
            )
            sets = interpreter.set_partition(windows[3], windows[1], windows[2], 9)
            results.append((*index, *windows, *sets))
    assert_all_equal(results[1], results[0])
    assert_all_equal(results[2], results[0])
