"""The CUDA kernels of voxelize and hard_voxelize on the interpreter."""

import pytest
import torch
from simt_library import schedule

from perception3d.ops.reference.hard_voxelize import hard_voxelize as hard_reference
from perception3d.ops.reference.voxelize import voxelize as voxelize_reference
from perception3d.ops.voxel_grid import voxel_grid_size

SIZE = (0.5, 0.25, 1.0)
RANGE = (-4.0, -2.0, -1.0, 4.0, 2.0, 3.0)


def voxelize(kernels, points, frames, batch_size, size=SIZE, limits=RANGE, check_z=True):
    cells = list(voxel_grid_size(size, limits))
    lower = list(limits[:3])
    return kernels.voxelize(points, frames, batch_size, list(size), lower, cells, check_z)


def hard_voxelize(kernels, points, max_points, max_voxels, size=SIZE, limits=RANGE):
    cells = list(voxel_grid_size(size, limits))
    return kernels.hard_voxelize(
        points, list(size), list(limits[:3]), cells, max_points, max_voxels
    )


def cloud(count, columns=5, batch_size=3, hot=0.0, spread=3.0):
    generator = torch.Generator().manual_seed(count)
    points = torch.randn(count, columns, generator=generator) * spread
    points[torch.rand(count, generator=generator) < hot, :3] = torch.tensor([1.1, 1.1, 1.1])
    frames = torch.randint(0, batch_size, (count,), generator=generator, dtype=torch.int32)
    return points, frames


def assert_all_equal(got, wanted):
    assert len(got) == len(wanted)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("check_z", [True, False])
@pytest.mark.parametrize("count", [0, 1, 255, 256, 1000])
def test_equals_reference(kernels, count, check_z):
    points, frames = cloud(count)
    wanted = voxelize_reference(points, frames, 3, SIZE, RANGE, check_z)
    assert_all_equal(voxelize(kernels, points, frames, 3, check_z=check_z), wanted)


def test_points_on_and_next_to_borders(kernels):
    generator = torch.Generator().manual_seed(0)
    steps = torch.randint(-20, 20, (600, 3), generator=generator)
    points = steps * torch.tensor(SIZE)
    nudge = torch.randint(0, 3, points.shape, generator=generator)
    up, down = torch.tensor(torch.inf), torch.tensor(-torch.inf)
    points = torch.where(nudge == 1, points.nextafter(up), points)
    points = torch.where(nudge == 2, points.nextafter(down), points)
    frames = torch.zeros(600, dtype=torch.int32)
    limits = (-3.7, -2.3, -1.1, 4.3, 1.7, 2.9)
    wanted = voxelize_reference(points, frames, 1, (0.4, 0.2, 0.8), limits)
    assert_all_equal(voxelize(kernels, points, frames, 1, (0.4, 0.2, 0.8), limits), wanted)


def test_hot_voxel_and_points_of_no_number(kernels):
    points, frames = cloud(2000, hot=0.9)
    points[::17, 0] = torch.nan
    points[::19, 2] = torch.inf
    for check_z in (True, False):
        wanted = voxelize_reference(points, frames, 3, SIZE, RANGE, check_z)
        assert wanted[3].diff().max() > 400
        assert_all_equal(voxelize(kernels, points, frames, 3, check_z=check_z), wanted)


def test_all_points_outside(kernels):
    points = torch.full((300, 3), 99.0)
    results = voxelize(kernels, points, torch.zeros(300, dtype=torch.int32), 1)
    assert_all_equal(results, voxelize_reference(points, torch.zeros(300).int(), 1, SIZE, RANGE))
    assert [tuple(result.shape) for result in hard_voxelize(kernels, points, 4, 4)] == [
        (300,),
        (0, 4),
        (0,),
    ]


def test_more_cells_than_32_bits_can_count(kernels):
    size, limits = (2.0**-10,) * 3, (-1024.0, -1024.0, -2.0, 1024.0, 1024.0, 2.0)
    points, frames = cloud(500, batch_size=40, spread=300.0)
    points[:, 2] /= 300
    frames[-1], points[-1, :3] = 39, torch.tensor([1023.9999, 1023.9999, 1.9999])  # largest key
    wanted = voxelize_reference(points, frames, 40, size, limits)
    assert wanted[0][-1] == wanted[1].shape[0] - 1 > 400
    assert_all_equal(voxelize(kernels, points, frames, 40, size, limits), wanted)
    wanted = hard_reference(points, size, limits, 3, 100)
    assert_all_equal(hard_voxelize(kernels, points, 3, 100, size, limits), wanted)


@pytest.mark.parametrize("max_points", [1, 5, 10**9])
@pytest.mark.parametrize("max_voxels", [1, 40, 10**9])
@pytest.mark.parametrize("hot", [0.0, 0.8])
def test_first_come_first_served(kernels, max_points, max_voxels, hot):
    points, _ = cloud(900, hot=hot, spread=1.5)
    wanted = hard_reference(points, SIZE, RANGE, max_points, max_voxels)
    assert_all_equal(hard_voxelize(kernels, points, max_points, max_voxels), wanted)


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_point(kernels, count):
    points, _ = cloud(count, columns=3)
    points = points * 0.1
    assert_all_equal(
        hard_voxelize(kernels, points, 2, 2), hard_reference(points, SIZE, RANGE, 2, 2)
    )


def test_no_order_of_threads_changes_anything(interpreter):
    points, frames = cloud(700, hot=0.5)
    wanted = voxelize(interpreter, points, frames, 3), hard_voxelize(interpreter, points, 5, 30)
    for number in (1, 2):
        with schedule(number):
            assert_all_equal(voxelize(interpreter, points, frames, 3), wanted[0])
            assert_all_equal(hard_voxelize(interpreter, points, 5, 30), wanted[1])


def test_a_frame_outside_the_batch_is_reported(interpreter):
    points, frames = cloud(10)
    frames[4] = 3
    with pytest.raises(RuntimeError, match=r"frame_of_point must be in 0\.\.2, got 3"):
        voxelize(interpreter, points, frames, 3)
