"""Voxelizer: the grid it builds and the centres of its cells."""

import pytest
import torch

from perception3d.models.voxelizer import Voxelizer, cell_centers
from perception3d.structures import Batch

RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)


def batch_of(points: list, frames: list[int], size: int) -> Batch:
    pose = torch.eye(4, dtype=torch.float64).repeat(size, 1, 1)
    rows = torch.tensor(points, dtype=torch.float32).reshape(-1, 5)
    frame_of_point = torch.tensor(frames, dtype=torch.int32)
    return Batch(tuple(map(str, range(size))), rows, frame_of_point, pose, pose)


@pytest.mark.parametrize(
    ("size", "bounds", "expected"),
    [
        ((0.3, 0.3, 8.0), RANGE, (360, 360, 1)),
        ((0.3, 0.3, 0.25), RANGE, (360, 360, 32)),
        ((0.32, 0.32, 0.1875), (-74.88, -74.88, -2, 74.88, 74.88, 4), (468, 468, 32)),
        ((0.075, 0.075, 0.2), RANGE, (1440, 1440, 40)),
    ],
)
def test_grid_size(size: tuple, bounds: tuple, expected: tuple):
    assert Voxelizer(size, bounds).grid_size == expected


def test_points_find_their_cells():
    points = [
        [-53.9, 0.1, 0.0, 0, 0],  # cell x 0, y 180
        [0.1, 0.1, 5.0, 0, 0],  # above the range
        [54.1, 0.0, 0.0, 0, 0],  # outside in x
        [-53.8, 0.2, -4.0, 0, 0],  # the first cell again
    ]
    voxels = Voxelizer((0.3, 0.3, 8.0), RANGE)(batch_of(points, [0, 0, 0, 0], 2))
    assert voxels.coords.tolist() == [[0, 0, 180, 0]]
    assert voxels.voxel_of_point.tolist() == [0, -1, -1, 0]
    assert voxels.order.tolist() == [0, 3]
    assert voxels.offsets.tolist() == [0, 2]
    assert (voxels.spatial_shape, voxels.batch_size) == ((1, 360, 360), 2)
    any_height = Voxelizer((0.3, 0.3, 8.0), RANGE, check_z=False)
    voxels = any_height(batch_of(points, [0, 0, 0, 1], 2))
    assert voxels.coords.tolist() == [[0, 0, 180, 0], [0, 0, 180, 180], [1, 0, 180, 0]]
    assert voxels.voxel_of_point.tolist() == [0, 1, -1, 2]


def test_no_points():
    voxels = Voxelizer((0.3, 0.3, 8.0), RANGE)(batch_of([], [], 1))
    assert voxels.num_voxels == 0
    assert voxels.offsets.tolist() == [0]


def test_centers_round_like_the_original():
    coords = torch.tensor([[0, 7, 123, 359]], dtype=torch.int32)
    center = cell_centers(coords, (0.3, 0.3, 0.25), RANGE)
    expected = [
        torch.tensor(float(index)) * size + (size / 2 + low)
        for index, size, low in zip((359, 123, 7), (0.3, 0.3, 0.25), RANGE[:3], strict=True)
    ]
    assert torch.equal(center, torch.stack(expected)[None])


@pytest.mark.parametrize(
    ("size", "bounds", "message"),
    [
        ((0.3, 0.3), RANGE, "voxel_size must be three sizes"),
        ((0.3, 0.3, 8.0), RANGE[:4], "point_cloud_range must be"),
        ((0.3, -0.3, 8.0), RANGE, "three sizes > 0 m"),
        ((0.3, 0.3, 8.0), (1, 0, 0, 0, 1, 1), "1 to 16777216 cells per axis"),
    ],
)
def test_what_makes_no_grid_is_refused(size: tuple, bounds: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        Voxelizer(size, bounds)


def test_open_height_needs_pillars():
    with pytest.raises(ValueError, match="one cell in z, got 32"):
        Voxelizer((0.3, 0.3, 0.25), RANGE, check_z=False)
