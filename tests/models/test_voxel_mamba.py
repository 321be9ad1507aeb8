"""Voxel Mamba as a whole: what must not change its result, and what it refuses."""

from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from perception3d.layers import position, sparse_rules
from perception3d.models.backbones import VoxelMamba, VoxelMambaStage, voxel_mamba
from perception3d.models.backbones.voxel_mamba_stage import curve_specs, stage_shapes
from perception3d.structures import CurveSpec, SparseVoxels, sparse_voxels

CELLS = (1.0, 1.0, 1.0)
STAGES = [VoxelMambaStage(2), VoxelMambaStage(1, stride=2), VoxelMambaStage(1, stride=4, kernel=5)]


def space(width: int, height: int, depth: int) -> dict:
    return {"voxel_size": CELLS, "point_cloud_range": (0.0, 0.0, 0.0, width, height, depth)}


def model(channels: int = 8, **settings: object) -> VoxelMamba:
    torch.manual_seed(1)
    return VoxelMamba(
        **space(20, 16, 31), stages=STAGES, channels=channels, **{"states": 4, **settings}
    )


def random_voxels(net: VoxelMamba, count: int, batch_size: int = 2, seed: int = 0) -> SparseVoxels:
    generator = torch.Generator().manual_seed(seed)
    width, height, depth = net.grid_size
    flat = torch.randperm(batch_size * width * height * depth, generator=generator)[:count]
    columns = (
        flat // (depth * height * width),
        flat // (height * width) % depth,
        flat // width % height,
        flat % width,
    )
    dtype = next(net.parameters()).dtype
    features = torch.randn(count, net.in_channels, generator=generator).to(dtype)
    coords = torch.stack(columns, dim=1).int()
    return SparseVoxels(features, coords, (depth, height, width), batch_size)


def by_cell(voxels: SparseVoxels) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates and features in ascending order of their cell."""
    b, z, y, x = voxels.coords.long().unbind(1)
    depth, height, width = voxels.spatial_shape
    rows = (((b * depth + z) * height + y) * width + x).argsort()
    return voxels.coords[rows], voxels.features[rows]


def settle(net: VoxelMamba) -> VoxelMamba:
    """Give every batch norm running statistics that are not those of a new one."""
    with torch.no_grad():
        net.train()(random_voxels(net, 300, seed=9))
    return net.eval()


def test_result_lies_on_one_layer():
    net = settle(model())
    result = net(random_voxels(net, 200))
    assert result.spatial_shape == (1, 16, 20)
    assert result.features.shape == (result.num_voxels, 8)
    assert not result.coords[:, 1].any()


def test_order_of_voxels_does_not_matter():
    net = settle(model().double())
    voxels = random_voxels(net, 150)
    coords, features = by_cell(net(voxels))
    other_coords, other = by_cell(net(voxels.take(torch.randperm(150))))
    assert torch.equal(coords, other_coords)
    assert_close(features, other)


def frame_alone(voxels: SparseVoxels, frame: int) -> SparseVoxels:
    alone = voxels.take(torch.nonzero(voxels.coords[:, 0] == frame).squeeze(1))
    coords = alone.coords.clone()
    coords[:, 0] = 0
    return SparseVoxels(alone.features, coords, alone.spatial_shape, 1)


@pytest.mark.parametrize("channels", [8, 24])
def test_a_batch_equals_its_frames_one_by_one_bit_for_bit(channels: int):
    net = settle(model(channels))
    voxels = random_voxels(net, 700, batch_size=3)
    with torch.no_grad():
        coords, features = by_cell(net(voxels))
        for frame in range(3):
            alone_coords, alone = by_cell(net(frame_alone(voxels, frame)))
            rows = coords[:, 0] == frame
            assert torch.equal(coords[rows][:, 1:], alone_coords[:, 1:])
            assert torch.equal(features[rows], alone)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_almost_empty_batches(training: bool, count: int):
    net = model().train(training)
    voxels = random_voxels(net, count)
    leaf = voxels.features.requires_grad_()
    result = net(voxels.with_features(leaf))
    assert result.batch_size == 2
    assert torch.isfinite(result.features).all()
    result.features.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())
    assert all(torch.isfinite(buffer).all() for buffer in net.buffers())


@pytest.mark.parametrize("training", [False, True])
def test_a_frame_that_loses_its_only_voxel_on_the_way(training: bool):
    torch.manual_seed(0)
    net = VoxelMamba(**space(20, 16, 32), stages=STAGES, channels=8, dropped_layers=1)
    net.train(training)
    # z = 31 reaches no output: three halvings of 33 layers see 31
    coords = torch.tensor([[0, 31, 3, 3], [1, 4, 5, 5], [1, 5, 5, 6]], dtype=torch.int32)
    features = torch.randn(3, 8, requires_grad=True)
    result = net(SparseVoxels(features, coords, (32, 16, 20), 3))
    assert result.coords[:, 0].unique().tolist() == [1]
    result.features.square().sum().backward()
    assert torch.isfinite(features.grad).all()
    if not training:  # in training the batch statistics join the frames
        assert not features.grad[0].any()
        assert features.grad[1].any()


def test_every_parameter_has_a_gradient():
    net = settle(model())
    result = net(random_voxels(net, 300))
    (result.features * torch.randn_like(result.features)).sum().backward()
    lacking = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert lacking == []


def test_gradient_agrees_with_finite_differences():
    net = settle(model().double())
    voxels = random_voxels(net, 60)
    direction, weight = torch.randn_like(voxels.features), torch.randn(1, 8, dtype=torch.float64)

    def value(features: torch.Tensor) -> torch.Tensor:
        return (net(voxels.with_features(features)).features * weight).sum()

    leaf = voxels.features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    step = 1e-6
    slope = value(leaf + step * direction) - value(leaf - step * direction)
    assert_close((gradient * direction).sum(), slope / (2 * step), atol=1e-5, rtol=1e-5)


def train_once(net: VoxelMamba, voxels: SparseVoxels) -> None:
    result = net.train()(voxels)
    (result.features * result.features.detach().cos()).sum().backward()


def test_checkpointing_changes_nothing():
    plain, saving = model(), model(checkpoint=True)
    for net in (plain, saving):
        train_once(net, random_voxels(net, 200))
    for (name, ours), theirs in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name
    for (name, ours), theirs in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(ours, theirs), name


def test_checkpointing_keeps_less():
    def kept_by(net: VoxelMamba) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        voxels = random_voxels(net, 400)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net.train()(voxels)
        return sum(sizes.values())

    assert kept_by(model(checkpoint=True)) < 0.25 * kept_by(model())


def test_tables_are_made_once_per_coordinates(monkeypatch: pytest.MonkeyPatch):
    made: list[object] = []

    def counted(name: str, function: Callable[..., object]) -> Callable[..., object]:
        return lambda *a, **k: made.append(name) or function(*a, **k)

    monkeypatch.setattr(sparse_rules, "_build", counted("rules", sparse_rules._build))
    monkeypatch.setattr(sparse_voxels, "curve_order", counted("curve", sparse_voxels.curve_order))
    columns = position.ImplicitWindowEmbedding._columns
    monkeypatch.setattr(position.ImplicitWindowEmbedding, "_columns", counted("positions", columns))
    net = settle(model())
    made.clear()
    net(random_voxels(net, 200))
    # Stage 0 has one set of coordinates, two shifts, one kernel and the reduction; stages 1 and
    # 2 have two sets, a curve on each, two kernels and the reductions, one more after the last.
    assert made.count("curve") == 2 + 2 + 2
    assert made.count("rules") == 2 + 3 + 4
    assert made.count("positions") == 1 + 2 + 2


def test_position_statistics_are_updated_coarse_scale_first():
    net = model()
    order: list[tuple[int, int, int]] = []
    net.position.register_forward_hook(lambda _m, inputs, _o: order.append(inputs[0].spatial_shape))
    net.train()(random_voxels(net, 200))
    assert order == [
        *[(32, 16, 20)] * 4,  # two blocks on one scale
        *[(8, 8, 10), (15, 16, 20)],
        *[(2, 4, 5), (7, 16, 20)],
    ]
    assert int(net.position.norm.num_batches_tracked) == 8


def test_published_geometry():
    shapes = stage_shapes(32, 468, 468, (1, 1, 2))
    assert [depth for depth, _, _ in shapes] == [33, 16, 7, 1]
    ranks = [
        [spec.rank for spec in curve_specs(stage, shape, 9, 5)]
        for stage, shape in zip(voxel_mamba.PUBLISHED_STAGES, shapes, strict=False)
    ]
    assert ranks == [[9, 9], [9, 8], [9, 7]]
    # the largest grid of rank 9 with six blocks
    stage = voxel_mamba.PUBLISHED_STAGES[2]
    assert curve_specs(stage, (7, 492, 492), 9, 5)[1] == CurveSpec(7, 5)
    with pytest.raises(ValueError, match="shifted by 5, needs curves of rank 10, got rank 9"):
        curve_specs(stage, (7, 493, 493), 9, 5)


@pytest.mark.parametrize("depth", [30, 31])
def test_heights_that_fit(depth: int):
    assert VoxelMamba(**space(20, 16, depth), stages=STAGES, channels=8).grid_size[2] == depth


def test_heights_that_lose_layers_are_refused_with_those_that_fit():
    room = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
    with pytest.raises(
        ValueError,
        match=r"see 31 layers of voxels, so the top 9 of 40 \(z >= 1\.2 m\) .*"
        r"0\.267 m \(30\), 0\.258 m \(31\)\. .*"
        r"the published grid, of 32 layers, has dropped_layers=1",
    ):
        VoxelMamba((0.3, 0.3, 0.2), room)
    with pytest.raises(ValueError, match="the top 1 of 32"):
        VoxelMamba((0.3, 0.3, 0.25), room)
    with pytest.raises(ValueError, match=r"top 9 of 40 .* 0\.258 m \(31\), 0\.25 m \(32\)\."):
        VoxelMamba((0.3, 0.3, 0.2), room, dropped_layers=1)
    with pytest.raises(ValueError, match=r"16 voxels in z are too few for 4 halvings .* \(30\)"):
        VoxelMamba((0.3, 0.3, 0.5), room)
    with pytest.raises(ValueError, match=r"dropped_layers must lie in 0\.\.14, got 15"):
        VoxelMamba((0.3, 0.3, 0.25), room, dropped_layers=15)


def test_the_layers_that_are_said_to_be_lost_are_lost():
    """Which layers reach the last cell, by walking the windows back."""
    for halvings in (1, 2, 3, 4):
        seen = {0}
        for _ in range(halvings):
            seen = {2 * cell + k for cell in seen for k in range(3)}
        assert seen == set(range(2 ** (halvings + 1) - 1))


def test_official_start():
    torch.manual_seed(0)
    room = (-74.88, -74.88, -2.0, 74.88, 74.88, 4.0)
    net = VoxelMamba((0.32, 0.32, 0.1875), room, dropped_layers=1)
    scan = net.blocks[0].coarse_scan
    bounds = {
        "A_log": (scan.A_log, 0.1485),
        "step": (scan.step_proj.weight, 0.1508),
        "conv": (scan.conv.weight, 0.0765),
        "out": (scan.out_proj.weight, 0.02552),
        "k3": (net.blocks[0].up.conv.weight, 0.00631),
        "k5": (net.blocks[5].up.conv.weight, 0.00379),
    }
    for name, (weight, bound) in bounds.items():
        assert float(weight.detach().abs().max()) == pytest.approx(bound, rel=0.02), name
    assert not net.position.linear1.bias.any()
    assert scan.step_proj.bias.any()
    assert net.blocks[0].local.conv.bias.any()
    assert sum(parameter.numel() for parameter in net.parameters()) == 15_124_864


def test_s4d_start_keeps_the_decay_rates():
    scan = model(init="s4d").blocks[0].fine_scan
    assert_close(scan.A_log.exp(), torch.arange(1.0, 5).repeat(16, 1))
    assert scan.out_proj.weight.abs().max() <= 16**-0.5 / 4**0.5


def test_misuse_is_refused_by_name():
    with pytest.raises(ValueError, match=r"init must be one of \('official', 's4d'\)"):
        model(init="random")
    with pytest.raises(ValueError, match=r"shifts must be one per block \(4\), got 3"):
        model(shifts=(0, 1, 2))
    with pytest.raises(ValueError, match="at least one VoxelMambaStage"):
        VoxelMamba(**space(20, 16, 31), stages=[])
    with pytest.raises(ValueError, match="needs curves of rank 6, got rank 5"):
        model(rank=5)
    with pytest.raises(ValueError, match="stride must be a power of two, got 3"):
        VoxelMambaStage(stride=3)
    with pytest.raises(ValueError, match="kernel must be odd and not below the stride"):
        VoxelMambaStage(stride=4, kernel=3)
    net = model()
    voxels = random_voxels(net, 10)
    with pytest.raises(ValueError, match=r"features must be \(N, 8\), got \(10, 3\)"):
        net(voxels.with_features(torch.zeros(10, 3)))
    other = SparseVoxels(voxels.features, voxels.coords, (31, 40, 40), 2)
    with pytest.raises(ValueError, match=r"grid of \(31, 16, 20\) cells"):
        net(other)
