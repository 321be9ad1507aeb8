"""Dynamic encoders: columns by hand, and what must not change the result."""

import pytest
import torch
from torch.testing import assert_close

from perception3d.models.encoders import PillarEncoder, VoxelEncoder
from perception3d.models.voxelizer import Voxelizer
from perception3d.structures import PointVoxels

SIZE, RANGE = (0.5, 0.5, 2.0), (-4.0, -4.0, -2.0, 4.0, 4.0, 2.0)


def random_points(count: int, columns: int = 5) -> torch.Tensor:
    points = torch.rand(count, columns)
    points[:, :3] = (points[:, :3] - 0.5) * torch.tensor([9.0, 9.0, 4.5])  # some outside
    return points


def voxels_of(points: torch.Tensor, frame_of_point: torch.Tensor | None = None) -> PointVoxels:
    if frame_of_point is None:
        frame_of_point = torch.zeros(points.shape[0], dtype=torch.int32)
    return Voxelizer(SIZE, RANGE).assign(points.float(), frame_of_point, 2)


def encoder(**settings: object) -> VoxelEncoder:
    torch.manual_seed(0)
    return VoxelEncoder(SIZE, RANGE, 5, (8, 6), **settings)


def by_hand(model: VoxelEncoder, points: torch.Tensor, voxels: PointVoxels) -> torch.Tensor:
    """The specification, voxel by voxel, for an encoder in eval mode."""
    results = []
    for number, (_, z, y, x) in enumerate(voxels.coords.tolist()):
        rows = points[voxels.voxel_of_point == number]
        center = torch.tensor([x * 0.5 - 3.75, y * 0.5 - 3.75, z * 2.0 - 1.0])
        xyz = rows[:, :3]
        columns = [rows if model.use_absolute_xyz else rows[:, 3:], xyz - xyz.mean(0), xyz - center]
        if model.with_distance:
            columns.append((xyz**2).sum(1, keepdim=True).sqrt())
        features = torch.cat(columns, 1)
        features = model.layers[0](features)
        features = torch.cat([features, features.amax(0).expand_as(features)], 1)
        results.append(model.layers[1](features).amax(0))
    return torch.stack(results)


@pytest.mark.parametrize(
    "settings",
    [{}, {"use_absolute_xyz": False}, {"with_distance": True}, {"use_norm": False}],
)
def test_equals_the_specification(settings: dict):
    model, points = encoder(**settings).eval(), random_points(200)
    voxels = voxels_of(points)
    result = model(points, voxels)
    assert_close(result.features, by_hand(model, points, voxels), atol=1e-5, rtol=1e-5)
    assert result.features.shape[1] == model.out_channels
    assert torch.equal(result.coords, voxels.coords)
    assert result.spatial_shape == (2, 16, 16)


def test_order_of_points_does_not_matter():
    model, points = encoder().double().eval(), random_points(300).double()
    shuffled = points[torch.randperm(300)]
    ours, theirs = model(points, voxels_of(points)), model(shuffled, voxels_of(shuffled))
    assert torch.equal(ours.coords, theirs.coords)
    assert_close(ours.features, theirs.features)


def test_frames_do_not_see_each_other_in_eval():
    model, points = encoder().eval(), random_points(200)
    frame_of_point = (torch.arange(200) >= 120).int()
    together = model(points, voxels_of(points, frame_of_point))
    second = points[120:]
    alone = model(second, voxels_of(second))
    rows = together.coords[:, 0] == 1
    assert torch.equal(together.coords[rows][:, 1:], alone.coords[:, 1:])
    assert_close(together.features[rows], alone.features)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("count", [0, 1])
def test_almost_no_points(training: bool, count: int):
    model = encoder().train(training)
    points = torch.zeros(count, 5)
    result = model(points, voxels_of(points))
    assert result.features.shape == (count, 6)
    assert torch.isfinite(result.features).all()
    result.features.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(torch.isfinite(buffer).all() for buffer in model.buffers())


def test_points_outside_do_not_count_in_the_statistics():
    inside = random_points(100)
    inside[:, :3] *= 0.5
    outside = torch.full((50, 5), 100.0)
    ours, theirs = encoder().train(), encoder().train()
    ours(inside, voxels_of(inside))
    both = torch.cat([outside, inside])
    theirs(both, voxels_of(both))
    assert_close(ours.state_dict(), theirs.state_dict())


def test_gradient_reaches_points_and_parameters():
    model, points = encoder().double().eval(), random_points(60).double().requires_grad_()
    voxels = voxels_of(points.detach())
    weight = torch.randn(voxels.num_voxels, 6, dtype=torch.float64)

    def value(rows: torch.Tensor) -> torch.Tensor:
        return (model(rows, voxels).features * weight).sum()

    (gradient,) = torch.autograd.grad(value(points), points)
    direction, step = torch.randn_like(points), 1e-7
    slope = value(points + step * direction) - value(points - step * direction)
    assert_close((gradient * direction).sum(), slope / (2 * step), atol=1e-4, rtol=1e-4)
    assert gradient[voxels.voxel_of_point < 0].abs().max() == 0


def test_pillar_encoder_wants_pillars():
    points = random_points(20)
    with pytest.raises(ValueError, match=r"one cell in z, got spatial_shape \(2, 16, 16\)"):
        PillarEncoder(SIZE, RANGE, 5, (8, 8))(points, voxels_of(points))
    tall = (0.5, 0.5, 4.0)
    voxels = Voxelizer(tall, RANGE, check_z=False).assign(
        points, torch.zeros(20, dtype=torch.int32), 1
    )
    assert PillarEncoder(tall, RANGE, 5, (8, 8))(points, voxels).features.shape[1] == 8


def test_published_widths():
    """Waymo (96, 11), (192, 192); nuScenes (64, 11), (128, 128)."""
    for width in (192, 128):
        model = VoxelEncoder(SIZE, RANGE, 5, (width, width))
        assert model.layers[0].linear.weight.shape == (width // 2, 11)
        assert model.layers[1].linear.weight.shape == (width, width)
        assert (model.layers[0].norm.eps, model.layers[0].norm.momentum) == (1e-3, 0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, (8, 8)), "in_channels must be >= 3"),
        ((5, ()), "one or more positive widths"),
        ((5, (7, 8)), "even but for the last"),
    ],
)
def test_impossible_settings_are_refused(arguments: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        VoxelEncoder(SIZE, RANGE, *arguments)


def test_wrong_points_are_refused():
    points = random_points(20)
    with pytest.raises(ValueError, match=r"points must be \(20, 5\) .* got \(20, 4\)"):
        encoder()(points[:, :4], voxels_of(points))


def test_mixed_precision_stays_near():
    model, points = encoder().eval(), random_points(200)
    voxels = voxels_of(points)
    expected = model(points, voxels).features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = model(points, voxels).features
    assert_close(result.float(), expected, atol=0.05, rtol=0.05)
