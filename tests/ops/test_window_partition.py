"""Voxels to windows: hand-computed, shifts of both signs, both numberings."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from voxel_samples import assert_same, random_coords, threads, voxel_sets

from perception3d.ops import window_partition
from perception3d.ops.reference.window_partition import window_partition as reference

BOTH = pytest.mark.parametrize("partition", [window_partition, reference])


def rows(*values):
    return torch.tensor(values, dtype=torch.int32).reshape(-1, 4)


@BOTH
def test_by_hand(partition):
    coords = rows((1, 0, 0, 5), (0, 0, 3, 0), (0, 0, 0, 2), (0, 1, 3, 1), (0, 0, 1, 3))
    window_of_voxel, order, offsets, cells = partition(coords, 2, (2, 4, 6), (2, 2, 2), (0, 0, 0))
    # (b, wx, wy): (1, 2, 0), (0, 0, 1), (0, 1, 0), (0, 0, 1), (0, 1, 0)
    assert window_of_voxel.tolist() == [2, 0, 1, 0, 1]
    assert order.tolist() == [1, 3, 2, 4, 0]
    assert offsets.tolist() == [0, 2, 4, 5]
    assert cells.tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 1]]


@BOTH
@pytest.mark.parametrize(("axis_order", "wanted"), [("xyz", [0, 1, 2, 3]), ("zyx", [0, 2, 1, 3])])
def test_numbering_of_windows(partition, axis_order, wanted):
    coords = rows((0, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1), (0, 1, 1, 1))
    result = partition(coords, 1, (2, 2, 2), (1, 1, 1), (0, 0, 0), axis_order=axis_order)
    assert result[0].tolist() == wanted


@BOTH
@pytest.mark.parametrize(
    ("shift", "windows", "cells"),
    [
        (0, [0, 0, 0, 1], [0, 1, 2, 0]),
        (2, [0, 1, 1, 1], [2, 0, 1, 2]),
        (-1, [0, 1, 1, 1], [2, 0, 1, 2]),
    ],
)
def test_shift_of_either_sign(partition, shift, windows, cells):
    coords = rows(*((0, 0, 0, x) for x in range(4)))
    result = partition(coords, 1, (1, 1, 4), (1, 1, 3), (0, 0, shift))
    assert result[0].tolist() == windows
    assert result[3][:, 2].tolist() == cells


@pytest.mark.parametrize("count", [0, 1, 2, 700, 100_000])
@pytest.mark.parametrize("shape", [(1, 468, 468), (32, 60, 50), (40, 1440, 1440)])
@pytest.mark.parametrize(
    ("window", "shift"),
    [
        ((1, 12, 12), (0, 0, 0)),
        ((4, 24, 24), (0, 6, 6)),
        ((3, 5, 7), (-2, 13, -40)),
        ((1, 1, 1), (0, 0, 0)),
    ],
)
def test_equals_reference(count, shape, window, shift):
    coords = random_coords(count, 3, shape, seed=count)
    for axis_order in ("xyz", "zyx"):
        wanted = reference(coords, 3, shape, window, shift, axis_order=axis_order)
        for number in (1, 3):
            with threads(number):
                ours = window_partition(coords, 3, shape, window, shift, axis_order=axis_order)
                assert_same(ours, wanted)


def test_window_numbers_beyond_32_bits():
    shape, batch_size = (40, 1440, 1440), 60
    coords = rows((59, 39, 1439, 1439), (0, 0, 0, 0), (59, 39, 1439, 1438))
    window_of_voxel, order, offsets, _ = window_partition(
        coords, batch_size, shape, (1, 1, 1), (0, 0, 0)
    )
    assert window_of_voxel.tolist() == [2, 0, 1]
    assert (order.tolist(), offsets.tolist()) == ([1, 2, 0], [0, 1, 2, 3])


@given(
    voxel_sets(),
    st.tuples(*(st.integers(1, 6) for _ in range(3))),
    st.tuples(*(st.integers(-7, 7) for _ in range(3))),
)
def test_properties(voxels, window, shift):
    coords, batch_size, shape = voxels
    count = coords.shape[0]
    window_of_voxel, order, offsets, cells = window_partition(
        coords, batch_size, shape, window, shift
    )
    assert sorted(order.tolist()) == list(range(count))
    assert (offsets[0], offsets[-1]) == (0, count)
    assert (offsets.diff() > 0).all()  # windows without voxels do not count
    for number in range(offsets.shape[0] - 1):
        members = order[offsets[number] : offsets[number + 1]]
        assert (window_of_voxel[members] == number).all()
        assert (members.diff() > 0).all()  # stable
        corner = coords[members, 1:] - cells[members]  # the same window, the same corner
        assert (corner == corner[0]).all()
        assert (coords[members, 0] == coords[members[0], 0]).all()
    assert ((cells >= 0) & (cells < torch.tensor(window))).all()


@given(voxel_sets(), st.integers(0, 10**6))
def test_order_of_voxels_does_not_matter(voxels, seed):
    coords, batch_size, shape = voxels
    shuffle = torch.randperm(coords.shape[0], generator=torch.Generator().manual_seed(seed))
    plain = window_partition(coords, batch_size, shape, (2, 3, 4), (1, 1, 1))
    shuffled = window_partition(coords[shuffle], batch_size, shape, (2, 3, 4), (1, 1, 1))
    assert torch.equal(shuffled[0], plain[0][shuffle])
    assert torch.equal(shuffled[2], plain[2])
    assert torch.equal(shuffled[3], plain[3][shuffle])


@given(voxel_sets(), voxel_sets())
def test_frames_do_not_touch(first, second):
    shape = tuple(max(a, b) for a, b in zip(first[2], second[2], strict=True))
    shifted = second[0] + torch.tensor([first[1], 0, 0, 0], dtype=torch.int32)
    frames = first[1] + second[1]
    together = window_partition(torch.cat([first[0], shifted]), frames, shape, (2, 3, 4), (1, 0, 2))
    alone = [
        window_partition(coords, size, shape, (2, 3, 4), (1, 0, 2))
        for coords, size, _ in (first, second)
    ]
    windows = alone[0][2].shape[0] - 1
    assert torch.equal(together[0], torch.cat([alone[0][0], alone[1][0] + windows]))


def test_non_contiguous_coords():
    coords = random_coords(60, 2, (4, 9, 9), seed=1)
    wide = torch.cat([coords, coords], dim=1)[:, :4]
    assert not wide.is_contiguous()
    arguments = (2, (4, 9, 9), (2, 3, 3), (0, 0, 0))
    assert_same(window_partition(wide, *arguments), reference(coords, *arguments))


def test_opcheck():
    coords = random_coords(60, 2, (4, 9, 9), seed=1)
    arguments = (coords, 2, [4, 9, 9], [2, 3, 3], [0, 1, 1], True)
    torch.library.opcheck(torch.ops.perception3d.window_partition, arguments)


def test_compiles_whole():
    def sizes(coords):
        return window_partition(coords, 2, (4, 9, 9), (2, 3, 3), (0, 0, 0))[2].diff().amax()

    coords = random_coords(60, 2, (4, 9, 9), seed=1)
    assert torch.compile(sizes, fullgraph=True, backend="aot_eager")(coords) == sizes(coords)


def test_errors():
    coords = rows((0, 0, 0, 0), (0, 0, 5, 0))
    good = {"spatial_shape": (1, 6, 6), "window": (1, 2, 2), "shift": (0, 0, 0)}

    def run(coords=coords, batch_size=1, **changed):
        return window_partition(coords, batch_size, **{**good, **changed})

    with pytest.raises(TypeError, match=r"coords must be \(N, 4\) int32, got \(2, 4\) int64"):
        run(coords.long())
    with pytest.raises(ValueError, match=r"coords must be \(N, 4\) int32, got \(2, 3\) int32"):
        run(coords[:, :3])
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        run(batch_size=0)
    with pytest.raises(ValueError, match=r"window must be three cell counts >= 1 .*\(1, 0, 2\)"):
        run(window=(1, 0, 2))
    with pytest.raises(ValueError, match=r"spatial_shape must be three .*got \(6, 6\)"):
        run(spatial_shape=(6, 6))
    with pytest.raises(ValueError, match=r"shift must be three cell counts \(z, y, x\), got"):
        run(shift=(0, 0))
    with pytest.raises(ValueError, match="axis_order must be 'xyz' or 'zyx', got 'yxz'"):
        run(axis_order="yxz")
    with pytest.raises(RuntimeError, match=r"1 x 5 x 6 cells .*\(0, 0, 5, 0\) in row 1"):
        run(spatial_shape=(1, 5, 6))
    with pytest.raises(RuntimeError, match=r"1 frames, got .*\(1, 0, 0, 0\) in row 0"):
        run(rows((1, 0, 0, 0)))
    with pytest.raises(RuntimeError, match=r"\(0, -1, 0, 0\) in row 0"):
        run(rows((0, -1, 0, 0)))
