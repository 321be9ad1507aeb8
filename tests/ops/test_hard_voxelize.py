"""First-come voxelisation with limits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from voxel_samples import assert_same, random_points, threads

from perception3d.ops import hard_voxelize, voxelize
from perception3d.ops.reference.hard_voxelize import hard_voxelize as reference

GRID = ((0.3, 0.3, 0.2), (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0))
UNIT = ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 4.0, 1.0, 1.0))


def line(*x):
    return torch.tensor([[value, 0.5, 0.5] for value in x])


@pytest.mark.parametrize("find", [hard_voxelize, reference])
@pytest.mark.parametrize(
    ("max_points", "max_voxels", "voxel_of_point", "x", "num_points"),
    [
        (9, 9, [0, 1, 0, -1, 0, 2, 1], [3, 1, 0], [3, 2, 1]),
        (2, 9, [0, 1, 0, -1, -1, 2, 1], [3, 1, 0], [2, 2, 1]),
        (9, 2, [0, 1, 0, -1, 0, -1, 1], [3, 1], [3, 2]),
        (1, 1, [0, -1, -1, -1, -1, -1, -1], [3], [1]),
    ],
)
def test_by_hand(find, max_points, max_voxels, voxel_of_point, x, num_points):
    points = line(3.1, 1.2, 3.9, 7.0, 3.5, 0.5, 1.9)
    result = find(points, *UNIT, max_points, max_voxels)
    assert result[0].tolist() == voxel_of_point
    assert result[1].tolist() == [[0, 0, 0, value] for value in x]
    assert result[2].tolist() == num_points


@pytest.mark.parametrize("count", [0, 1, 5000, 70_000])
@pytest.mark.parametrize("limits", [(1, 1), (3, 50), (10, 120_000)])
def test_equals_reference(count, limits):
    points = random_points(count, seed=count, extent=4.0)
    points[: count // 100, 0] = torch.nan
    for number in (1, 3):
        with threads(number):
            assert_same(hard_voxelize(points, *GRID, *limits), reference(points, *GRID, *limits))


@given(st.integers(0, 80), st.integers(1, 4), st.integers(1, 30))
def test_limits_hold_and_loose_limits_drop_nothing(count, max_points, max_voxels):
    points = random_points(count, seed=count, extent=1.0)
    voxel_of_point, coords, num_points = hard_voxelize(points, *GRID, max_points, max_voxels)
    assert coords.shape[0] <= max_voxels
    assert (num_points <= max_points).all()
    assert torch.equal(
        torch.bincount(voxel_of_point[voxel_of_point >= 0], minlength=coords.shape[0]), num_points
    )
    loose = hard_voxelize(points, *GRID, 80, 80)
    dynamic = voxelize(points, torch.zeros(count, dtype=torch.int32), 1, *GRID)
    assert torch.equal(loose[0] >= 0, dynamic[0] >= 0)
    assert sorted(loose[1].tolist()) == sorted(dynamic[1].tolist())


def test_non_contiguous_points():
    points = random_points(90, seed=2, columns=6)[::2]
    assert_same(hard_voxelize(points, *GRID, 2, 30), reference(points, *GRID, 2, 30))


def test_opcheck():
    arguments = (random_points(50, seed=2), [0.3, 0.3, 0.2], [-54.0, -54.0, -5.0], [360, 360, 40])
    torch.library.opcheck(torch.ops.perception3d.hard_voxelize, (*arguments, 3, 20))


def test_compiles_whole():
    def count(points):
        voxel_of_point, _, num_points = hard_voxelize(points, *GRID, 2, 30)
        return (voxel_of_point >= 0).sum(), num_points.sum()

    points = random_points(90, seed=2)
    compiled = torch.compile(count, fullgraph=True, backend="aot_eager")
    assert compiled(points) == count(points)


def test_errors():
    points = torch.zeros(3, 4)
    with pytest.raises(TypeError, match=r"points must be \(P, F\) float32, got list"):
        hard_voxelize([[0.0, 0.0, 0.0]], *GRID, 1, 1)
    with pytest.raises(ValueError, match=r"points must be \(P, >= 3\) float32, got \(3, 1\)"):
        hard_voxelize(points[:, :1], *GRID, 1, 1)
    with pytest.raises(ValueError, match="max_points must be >= 1, got 0"):
        hard_voxelize(points, *GRID, 0, 1)
    with pytest.raises(ValueError, match="max_voxels must be >= 1, got -3"):
        hard_voxelize(points, *GRID, 1, -3)
    with pytest.raises(ValueError, match="hard_voxelize: voxel_size"):
        hard_voxelize(points, (0, 1, 1), GRID[1], 1, 1)
