"""Points to voxels: hand-computed cells, borders, large grids, any order and number of frames."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from voxel_samples import assert_same, random_points, threads

from perception3d.ops import voxel_grid_size, voxelize
from perception3d.ops.reference.voxelize import voxelize as reference

PILLARS = ((0.3, 0.3, 8.0), (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0))
VOXELS = ((0.3, 0.3, 0.2), (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0))
FINE = ((0.075, 0.075, 0.2), (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0))
BOTH = pytest.mark.parametrize("find", [voxelize, reference])


def frames(*numbers):
    return torch.tensor(numbers, dtype=torch.int32)


@BOTH
def test_by_hand(find):
    points = torch.tensor(
        [
            [2.5, 0.5, 0.5],
            [0.5, 1.5, 0.5],
            [2.9, 0.1, 0.9],  # with point 0
            [0.0, 0.0, 0.0],  # the lower bound is inside
            [4.0, 0.0, 0.0],  # the upper bound is outside
            [-0.1, 0.0, 0.0],  # floor, not truncation
            [0.5, 1.5, 1.5],
            [0.5, 1.5, 0.5],  # frame 0
        ]
    )
    result = find(points, frames(1, 1, 1, 1, 1, 1, 1, 0), 3, (1, 1, 1), (0, 0, 0, 4, 3, 2))
    voxel_of_point, coords, order, offsets = result
    assert coords.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0], [1, 0, 0, 2]]
    assert voxel_of_point.tolist() == [4, 2, 4, 1, -1, -1, 3, 0]
    assert order.tolist() == [7, 3, 1, 6, 0, 2]
    assert offsets.tolist() == [0, 1, 2, 3, 4, 6]


@BOTH
def test_points_that_are_not_finite_are_dropped(find):
    points = torch.full((10, 4), 0.5)
    bad = (torch.nan, torch.inf, -torch.inf)
    for row in range(9):
        points[row, row % 3] = bad[row // 3]
    points[9, 3] = torch.nan  # other columns are not looked at
    for check_z in (True, False):
        result = find(points, frames(*[0] * 10), 1, (1, 1, 1), (0, 0, 0, 1, 1, 1), check_z)
        assert result[0].tolist() == [-1] * 9 + [0]


@BOTH
def test_without_check_z_height_does_not_matter(find):
    points = torch.tensor([[0.5, 0.5, -1e9], [0.5, 0.5, 1e9], [0.5, 0.5, 2.5], [9.0, 0.5, 0.5]])
    extent = (0, 0, 0, 1, 1, 3)
    voxel_of_point, coords, _, _ = find(points, frames(0, 0, 0, 0), 1, (1, 1, 1), extent, False)
    assert coords.tolist() == [[0, 0, 0, 0]]
    assert voxel_of_point.tolist() == [0, 0, 0, -1]
    assert find(points, frames(0, 0, 0, 0), 1, (1, 1, 1), extent)[0].tolist() == [-1, -1, 0, -1]


@BOTH
def test_division_is_a_float_division(find):
    # (0.9 - 0) / 0.3 in float32 is 3 - 1 ulp or 3 depending on the rule: division gives 3.0000002,
    # a product with the reciprocal or a float64 quotient may give another cell for such borders.
    steps = torch.arange(1, 360, dtype=torch.float32)
    borders = -54.0 + steps * torch.tensor(0.3)
    points = torch.stack([borders, borders, torch.zeros_like(borders)], dim=1)
    cells = torch.floor((borders - torch.tensor(-54.0)) / torch.tensor(0.3)).int()
    voxel_of_point, coords, _, _ = find(points, frames(*[0] * 359), 1, *PILLARS)
    assert torch.equal(coords[voxel_of_point][:, 3], cells)
    doubles = torch.floor((borders.double() + 54.0) / 0.3).int()
    assert not torch.equal(cells, doubles)  # the test can tell the rules apart


@pytest.mark.parametrize("grid", [PILLARS, VOXELS, FINE])
@pytest.mark.parametrize("count", [0, 1, 2, 300, 100_000])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("check_z", [True, False])
def test_equals_reference(grid, count, batch_size, check_z):
    points = random_points(count, seed=count, extent=30.0)
    frame = torch.randint(0, batch_size, (count,), dtype=torch.int32)  # frames mixed
    wanted = reference(points, frame, batch_size, *grid, check_z)
    for number in (1, 3):
        with threads(number):
            assert_same(voxelize(points, frame, batch_size, *grid, check_z), wanted)
            by_frame = frame.sort().values
            assert_same(
                voxelize(points, by_frame, batch_size, *grid, check_z),
                reference(points, by_frame, batch_size, *grid, check_z),
            )


def test_keys_beyond_32_bits():
    # 1440 x 1440 x 40 cells: frame 30 starts at key 2.49e9; the last cell of frame 30 is occupied.
    points = torch.tensor([[53.99, 53.99, 2.99], [-54.0, -54.0, -5.0], [53.99, 53.99, 2.99]])
    result = voxelize(points, frames(30, 30, 29), 31, *FINE)
    assert result[1].tolist() == [[29, 39, 1439, 1439], [30, 0, 0, 0], [30, 39, 1439, 1439]]
    assert result[0].tolist() == [2, 1, 0]
    assert_same(result, reference(points, frames(30, 30, 29), 31, *FINE))


def test_frames_larger_than_32_bits():
    size, extent = (0.01, 0.01, 0.01), (0.0, 0.0, 0.0, 100.0, 100.0, 100.0)  # 1e12 cells a frame
    assert voxel_grid_size(size, extent) == (10_000, 10_000, 10_000)
    points = random_points(5000, seed=5, extent=50.0).abs()
    frame = torch.randint(0, 2, (5000,), dtype=torch.int32)
    assert_same(voxelize(points, frame, 2, size, extent), reference(points, frame, 2, size, extent))


def test_keys_that_leave_no_room_beside_row_numbers():
    size, extent = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 2.0**20, 2.0**20, 2.0**20)
    generator = torch.Generator().manual_seed(7)
    points = torch.randint(0, 2**20, (300, 3), generator=generator).float()
    points = torch.cat([points, points[:50]])
    frame = torch.randint(0, 4, (350,), generator=generator, dtype=torch.int32)
    assert_same(voxelize(points, frame, 4, size, extent), reference(points, frame, 4, size, extent))


def test_empty_frames_stay():
    points = random_points(100, seed=1)
    _, coords, _, _ = voxelize(points, frames(*[2] * 100), 5, *PILLARS)
    assert coords[:, 0].unique().tolist() == [2]
    _, coords, order, offsets = voxelize(points + 1e6, frames(*[2] * 100), 5, *PILLARS)
    assert (coords.shape, order.shape, offsets.tolist()) == ((0, 4), (0,), [0])


@given(st.integers(0, 60), st.integers(0, 10**6))
def test_properties(count, seed):
    points = random_points(count, seed, extent=20.0)
    frame = (torch.arange(count) % 2).int()
    voxel_of_point, coords, order, offsets = voxelize(points, frame, 2, *VOXELS)
    b, z, y, x = coords.long().unbind(1)
    keys = ((b * 360 + x) * 360 + y) * 40 + z
    assert (keys.diff() > 0).all()  # unique, ascending by (b, x, y, z)
    assert sorted(order.tolist()) == (voxel_of_point >= 0).nonzero().flatten().tolist()
    assert torch.equal(voxel_of_point[order].sort(stable=True).values, voxel_of_point[order])
    assert (offsets.diff() > 0).all()
    # Points in another order: the same voxels, the same members.
    shuffle = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    shuffled = voxelize(points[shuffle], frame[shuffle], 2, *VOXELS)
    assert torch.equal(shuffled[1], coords)
    assert torch.equal(shuffled[0], voxel_of_point[shuffle])


@given(st.integers(0, 40), st.integers(0, 40))
def test_frames_do_not_touch(first, second):
    points = random_points(first + second, seed=first * 41 + second, extent=20.0)
    frame = frames(*[0] * first, *[1] * second)
    together = voxelize(points, frame, 2, *VOXELS)[1]
    alone = [
        voxelize(part, torch.zeros(part.shape[0], dtype=torch.int32), 1, *VOXELS)[1]
        for part in (points[:first], points[first:])
    ]
    alone[1][:, 0] = 1
    assert torch.equal(together, torch.cat(alone))


def test_non_contiguous_points():
    points = random_points(200, seed=3, columns=8)
    frame = torch.zeros(200, 2, dtype=torch.int32)[:, 0]
    view = points[:, :4]
    assert not view.is_contiguous()
    assert_same(voxelize(view, frame, 1, *VOXELS), reference(view, frame, 1, *VOXELS))
    same = voxelize(points.T.contiguous().T, frame, 1, *VOXELS)
    assert_same(same, reference(points, frame, 1, *VOXELS))


def test_points_that_need_gradients():
    points = random_points(50, seed=4).requires_grad_()
    result = voxelize(points, torch.zeros(50, dtype=torch.int32), 1, *VOXELS)
    assert not any(table.requires_grad for table in result)


def test_opcheck():
    arguments = (random_points(50, seed=2), torch.zeros(50, dtype=torch.int32), 1)
    rest = ([0.3, 0.3, 0.2], [-54.0, -54.0, -5.0], [360, 360, 40], True)
    torch.library.opcheck(torch.ops.perception3d.voxelize, (*arguments, *rest))


def test_compiles_whole():
    def count(points, frame):
        return voxelize(points, frame, 1, *VOXELS)[3].diff().sum()

    points, frame = random_points(50, seed=2), torch.zeros(50, dtype=torch.int32)
    compiled = torch.compile(count, fullgraph=True, backend="aot_eager")
    assert compiled(points, frame) == count(points, frame)


def test_errors():
    points, frame = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int32)
    with pytest.raises(TypeError, match=r"points must be \(P, F\) float32, got \(3, 4\) float64"):
        voxelize(points.double(), frame, 1, *PILLARS)
    with pytest.raises(ValueError, match=r"points must be \(P, >= 3\) float32, got \(3, 2\)"):
        voxelize(points[:, :2], frame, 1, *PILLARS)
    with pytest.raises(ValueError, match=r"frame_of_point must be \(3,\) int32, got \(2,\) int32"):
        voxelize(points, frame[:2], 1, *PILLARS)
    with pytest.raises(TypeError, match=r"frame_of_point must be \(3,\) int32, got \(3,\) int64"):
        voxelize(points, frame.long(), 1, *PILLARS)
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        voxelize(points, frame, 0, *PILLARS)
    with pytest.raises(ValueError, match="one device"):
        voxelize(points, frame.to("meta"), 1, *PILLARS)
    with pytest.raises(RuntimeError, match=r"frame_of_point must be in 0\.\.1, got 2 for point 1"):
        voxelize(points, frames(0, 2, 0), 2, *PILLARS)
    with pytest.raises(RuntimeError, match=r"frame_of_point must be in 0\.\.1, got -1 for point 0"):
        voxelize(points, frames(-1, 0, 0), 2, *PILLARS)


@pytest.mark.parametrize(
    ("size", "extent", "message"),
    [
        ((0.3, 0.0, 8.0), PILLARS[1], "voxel_size must be three sizes > 0 m"),
        ((0.3, 0.3), PILLARS[1], "voxel_size must be three sizes > 0 m"),
        ((0.3, 0.3, 8.0), PILLARS[1][:5], "point_cloud_range must be"),
        ((0.3, 0.3, float("nan")), PILLARS[1], "voxel_size must be three sizes > 0 m"),
        ((0.3, 0.3, 100.0), PILLARS[1], r"1 to 16777216 cells per axis, got \(360, 360, 0\)"),
        ((1e-6, 0.3, 8.0), PILLARS[1], r"cells per axis, got \(108000000, 360, 1\)"),
    ],
)
def test_impossible_grids(size, extent, message):
    with pytest.raises(ValueError, match=message):
        voxelize(torch.zeros(1, 3), frames(0), 1, size, extent)
