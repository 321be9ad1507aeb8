"""DSVT as a whole: what must not change its result, and what it refuses."""

import copy

import pytest
import torch
from torch.testing import assert_close

from perception3d.models.backbones import DSVT, DSVTStage
from perception3d.structures import SparseVoxels

PILLAR_GRID, VOXEL_GRID = (12, 12, 1), (12, 12, 8)


def pillar_model(**settings: object) -> DSVT:
    torch.manual_seed(1)
    stages = [DSVTStage((4, 4, 1), set_size=5, blocks=2)]
    return DSVT(PILLAR_GRID, stages, 16, 4, hybrid_factor=(2, 2, 1), **settings)


def voxel_model(**settings: object) -> DSVT:
    torch.manual_seed(2)
    stages = [
        DSVTStage((4, 4, 8), set_size=6, pool_stride=(1, 1, 4)),
        DSVTStage((4, 4, 2), set_size=5, pool_stride=(1, 1, 2)),
        DSVTStage((4, 4, 1), set_size=4),
    ]
    return DSVT(VOXEL_GRID, stages, 16, 4, hybrid_factor=(2, 2, 1), **settings)


def random_voxels(model: DSVT, count: int, batch_size: int = 2) -> SparseVoxels:
    width, height, depth = model.grid_size
    flat = torch.randperm(batch_size * width * height * depth)[:count]
    columns = (
        flat // (depth * height * width),
        flat // (height * width) % depth,
        flat // width % height,
        flat % width,
    )
    features = torch.randn(count, model.in_channels, dtype=next(model.parameters()).dtype)
    coords = torch.stack(columns, dim=1).int()
    return SparseVoxels(features, coords, (depth, height, width), batch_size)


def by_cell(voxels: SparseVoxels) -> torch.Tensor:
    """Features in ascending order of their cell."""
    b, z, y, x = voxels.coords.long().unbind(1)
    depth, height, width = voxels.spatial_shape
    return voxels.features[(((b * width + x) * height + y) * depth + z).argsort()]


MODELS = pytest.mark.parametrize("build", [pillar_model, voxel_model])


@MODELS
def test_order_of_voxels_does_not_matter(build):
    model = build().double().eval()
    voxels = random_voxels(model, 120)
    shuffled = voxels.take(torch.randperm(120))
    assert_close(by_cell(model(voxels)), by_cell(model(shuffled)))


def test_pillars_keep_their_rows():
    model = pillar_model().eval()
    voxels = random_voxels(model, 50)
    result = model(voxels)
    assert torch.equal(result.coords, voxels.coords)
    assert result.spatial_shape == voxels.spatial_shape


@MODELS
def test_frames_do_not_see_each_other_in_eval(build):
    model = build().double().eval()
    voxels = random_voxels(model, 150, batch_size=3)
    together = model(voxels)
    for frame in range(3):
        alone = voxels.take(torch.nonzero(voxels.coords[:, 0] == frame).squeeze(1))
        coords = alone.coords.clone()
        coords[:, 0] = 0
        single = SparseVoxels(alone.features, coords, alone.spatial_shape, 1)
        rows = torch.nonzero(together.coords[:, 0] == frame).squeeze(1)
        assert_close(by_cell(model(single)), by_cell(together.take(rows)))


@MODELS
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_almost_empty_batches(build, training: bool, count: int):
    model = build().train(training)
    voxels = random_voxels(model, count)
    leaf = voxels.features.requires_grad_()
    result = model(voxels.with_features(leaf))
    assert result.features.shape == (result.num_voxels, 16)
    assert result.batch_size == 2
    assert torch.isfinite(result.features).all()
    result.features.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    assert all(torch.isfinite(buffer).all() for buffer in model.buffers())


@MODELS
def test_every_parameter_has_a_gradient_in_eval_mode(build):
    model = build().eval()
    result = model(random_voxels(model, 150))
    (result.features * torch.randn_like(result.features)).sum().backward()
    lacking = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A constant added to all keys of a set changes no softmax; the qkv bias has other parts too.
    assert lacking == []


@MODELS
def test_gradient_agrees_with_finite_differences(build):
    model = build().double().eval()
    voxels = random_voxels(model, 40)
    direction, weight = torch.randn_like(voxels.features), torch.randn(1, 16, dtype=torch.float64)

    def value(features: torch.Tensor) -> torch.Tensor:
        return (model(voxels.with_features(features)).features * weight).sum()

    leaf = voxels.features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    step = 1e-6
    slope = value(leaf + step * direction) - value(leaf - step * direction)
    assert_close((gradient * direction).sum(), slope / (2 * step), atol=1e-5, rtol=1e-5)


@MODELS
def test_checkpointing_changes_nothing(build):
    plain, saving = build(), build(checkpoint=True)
    voxels = random_voxels(plain, 100)
    for model in (plain, saving):
        model.train()
        result = model(voxels)
        (result.features * result.features.detach().cos()).sum().backward()
    for (name, ours), theirs in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name
    for (name, ours), theirs in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(ours, theirs), name


def test_position_modes_differ_exactly_where_partitions_differ():
    released, corrected = pillar_model(), pillar_model(position="corrected")
    windows = [[p.window for p in block.positions] for block in released.stages[0].blocks]
    assert windows == [[(1, 4, 4), (1, 8, 8)], [(1, 4, 4), (1, 8, 8)]]
    windows = [[p.window for p in block.positions] for block in corrected.stages[0].blocks]
    assert windows == [[(1, 4, 4), (1, 4, 4)], [(1, 8, 8), (1, 8, 8)]]
    corrected.load_state_dict(released.state_dict())
    voxels = random_voxels(released, 60)
    difference = released.eval()(voxels).features - corrected.eval()(voxels).features
    assert difference.abs().mean() > 1e-3


def test_partition_alternates_over_stages():
    sizes = [stage.blocks[0].set_windows.size for stage in voxel_model().stages]
    assert sizes == [(8, 4, 4), (2, 8, 8), (1, 4, 4)]


@pytest.mark.parametrize("reduction", ["maxpool", "linear"])
def test_other_reductions(reduction: str):
    model = voxel_model(reduction=reduction).eval()
    voxels = random_voxels(model, 100)
    result = model(voxels)
    assert result.spatial_shape == (1, 12, 12)
    assert_close(result.coords, voxel_model().eval()(voxels).coords)


def test_linear_reduction_changes_the_width():
    stages = [DSVTStage((4, 4, 2), 6, pool_stride=(1, 1, 2)), DSVTStage((4, 4, 1), 6)]
    model = DSVT((12, 12, 2), stages, (8, 16), 4, reduction="linear")
    assert model(random_voxels(model, 30)).features.shape[1] == model.out_channels == 16


def test_frozen_parameters_are_the_projections_and_keep_their_gradients():
    model = voxel_model()
    frozen = list(model.frozen_parameters())
    names = {name for name, p in model.named_parameters() if any(p is q for q in frozen)}
    assert len(frozen) == len(names) == 2 * 6 + 3 * 2  # layers, poolings
    assert all(name.endswith(("qkv.weight", "qkv.bias", "pooling.position")) for name in names)
    assert all(parameter.requires_grad for parameter in frozen)


@pytest.mark.parametrize(
    ("settings", "total", "frozen"),
    [
        (((468, 468, 1), [DSVTStage((12, 12, 1), 36, 4)], 192), 2_684_928, None),
        (((360, 360, 1), [DSVTStage((30, 30, 1), 90, 4)], 128), 1_200_128, None),
        (
            (
                (468, 468, 32),
                [
                    DSVTStage((12, 12, 32), 48, pool_stride=(1, 1, 4)),
                    DSVTStage((12, 12, 8), 48, pool_stride=(1, 1, 4)),
                    DSVTStage((12, 12, 2), 48, pool_stride=(1, 1, 2)),
                    DSVTStage((12, 12, 1), 48),
                ],
                192,
            ),
            3_133_824,
            1_224_768,
        ),
    ],
)
def test_published_parameter_counts(settings: tuple, total: int, frozen: int | None):
    model = DSVT(*settings)
    assert sum(parameter.numel() for parameter in model.parameters()) == total
    if frozen is not None:
        assert sum(parameter.numel() for parameter in model.frozen_parameters()) == frozen


def test_initial_weights_are_xavier_uniform():
    model = voxel_model()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            bound = (6 / (parameter.shape[0] + parameter.shape[1])) ** 0.5
            assert 0.7 * bound < parameter.abs().max() <= bound, name


STAGE = DSVTStage((4, 4, 1), set_size=5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DSVTStage((4, 4), 5), "window must be three whole numbers"),
        (lambda: DSVTStage((4, 4, 1), 0), "set_size and blocks must be >= 1"),
        (lambda: DSVTStage((4, 4, 1), 5, shifts=((0, 0, 0),)), "one .x, y, z. for each of the two"),
        (lambda: DSVT((12, 12, 1), []), "at least one DSVTStage"),
        (lambda: DSVT((1, 12, 12), [STAGE]), "fewer cells in z than in x"),
        (lambda: DSVT((12, 12, 2), [STAGE]), "leaves 2"),
        (lambda: DSVT((12, 12, 1), [DSVTStage((4, 4, 2), 5)]), "window of 2 cells in z"),
        (
            lambda: DSVT((12, 12, 2), [STAGE], flat_output=False),
            "window of 1 cells in z does not go with a grid of 2",
        ),
        (lambda: DSVT((12, 12, 1), [STAGE, STAGE]), "must have a pool_stride"),
        (lambda: DSVT((12, 12, 1), [STAGE], 30), "multiple of heads, got 30 and 8"),
        (lambda: DSVT((12, 12, 1), [STAGE], (16, 16)), "one width or one per stage"),
        (lambda: DSVT((12, 12, 1), [STAGE], 16, position="right"), "position must be one of"),
        (lambda: DSVT((12, 12, 1), [STAGE], 16, reduction="mean"), "reduction must be one of"),
        (
            lambda: DSVT((12, 12, 1), [DSVTStage((4, 4, 1), 5, shifts=((9, 0, 0), (0, 0, 0)))], 16),
            "shift must not exceed its window",
        ),
        (
            lambda: DSVT(
                (12, 12, 2), [DSVTStage((4, 4, 2), 5, pool_stride=(1, 1, 2)), STAGE], 12, 4
            ),
            "multiple of its 8 heads, got 12",
        ),
        (
            lambda: DSVT(
                (12, 12, 2), [DSVTStage((4, 4, 2), 5, pool_stride=(1, 1, 2)), STAGE], (8, 16), 4
            ),
            "only reduction='linear' can change the width",
        ),
    ],
)
def test_impossible_settings_are_refused(build, message: str):
    with pytest.raises(ValueError, match=message):
        build()


def test_wrong_voxels_are_refused():
    model = pillar_model()
    coords = torch.zeros(1, 4, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"on a grid of \(1, 12, 12\) cells"):
        model(SparseVoxels(torch.zeros(1, 16), coords, (1, 12, 13), 1))
    with pytest.raises(ValueError, match=r"features must be \(N, 16\), got \(1, 8\)"):
        model(SparseVoxels(torch.zeros(1, 8), coords, (1, 12, 12), 1))


@pytest.mark.gpu
@MODELS
def test_cuda_equals_cpu(build):
    model = build().eval()
    voxels = random_voxels(model, 150)
    expected = model(voxels)
    moved = SparseVoxels(
        voxels.features.cuda(), voxels.coords.cuda(), voxels.spatial_shape, voxels.batch_size
    )
    result = model.cuda()(moved)
    assert torch.equal(result.coords.cpu(), expected.coords)
    assert_close(result.features.cpu(), expected.features, atol=1e-4, rtol=1e-4)


@MODELS
def test_mixed_precision_stays_near(build):
    model = build().eval()
    voxels = random_voxels(model, 100)
    expected = model(voxels).features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = model(voxels).features
        (result.float() * expected.detach().cos()).sum().backward()
    assert_close(result.float(), expected, atol=0.15, rtol=0)
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@MODELS
def test_weights_survive_saving(build, tmp_path):
    model, other = build().eval(), build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    other.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    voxels = random_voxels(model, 60)
    assert torch.equal(other.eval()(voxels).features, model(voxels).features)
    assert torch.equal(copy.deepcopy(model)(voxels).features, model(voxels).features)


@pytest.mark.parametrize("build", [pillar_model, voxel_model])
def test_inference_leaves_its_input_and_equals_the_pass_with_gradients(build):
    model = build().eval()
    voxels = random_voxels(model, 40)
    before = voxels.features.clone()
    wanted = model(voxels).features.detach()
    with torch.no_grad():
        found = model(voxels).features
    # Up to rounding: without gradients GELU is part of the linear map, and rounded by itself.
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(voxels.features, before)
