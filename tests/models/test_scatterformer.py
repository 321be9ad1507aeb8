"""ScatterFormer: against its formulas written out, what must not change its result, misuse."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from perception3d.models.backbones import ScatterFormer
from perception3d.models.backbones.scatterformer import ScatterFormerLayer, ScatterFormerStage
from perception3d.structures import SparseVoxels

GRID = (18, 13, 8)


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and running statistic a value that matters."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0, generator=generator)
        elif value.is_floating_point():
            fan = math.sqrt(max(value[0].numel(), 1)) if value.ndim > 1 else 2.0
            value.normal_(generator=generator).div_(fan)
    return module


def model(seed: int = 0, **options: object) -> ScatterFormer:
    settings = {"in_channels": 6, "channels": 24, "window": 4, "heads": 2, "layers": (2, 1)}
    net = ScatterFormer(GRID, **{**settings, **options})
    return randomised(net, seed).double()


def random_voxels(
    count: int, *, channels: int = 6, batch_size: int = 2, seed: int = 0, grid: tuple = GRID
) -> SparseVoxels:
    generator = torch.Generator().manual_seed(seed)
    shape = tuple(reversed(grid))
    flat = torch.randperm(batch_size * math.prod(shape), generator=generator)[:count]
    columns = torch.unravel_index(flat, (batch_size, *shape))
    features = torch.randn(count, channels, generator=generator, dtype=torch.float64)
    return SparseVoxels(features, torch.stack(columns, 1).int(), shape, batch_size)


def dense(voxels: SparseVoxels) -> torch.Tensor:
    """(B, Z, Y, X, C) with zeros in empty cells."""
    shape = (voxels.batch_size, *voxels.spatial_shape, voxels.features.shape[1])
    return voxels.features.new_zeros(shape).index_put(
        tuple(voxels.coords.long().T), voxels.features
    )


def written_out(layer: ScatterFormerLayer, voxels: SparseVoxels, window: int) -> torch.Tensor:
    """One layer by its formulas: quadratic attention, dense convolutions, norms by hand."""

    def norm(rows: torch.Tensor, module: nn.BatchNorm1d) -> torch.Tensor:
        mean, var = module.running_mean, module.running_var
        if module.training:
            mean, var = rows.mean(0), rows.var(0, unbiased=False)
        return (rows - mean) / torch.sqrt(var + 1e-3) * module.weight + module.bias

    features = voxels.features
    count, channels = features.shape
    b, _, y, x = voxels.coords.T
    key = torch.stack([b, y // window, x // window])
    together = (key[:, :, None] == key[:, None]).all(0)
    heads = layer.attention.heads
    qkv = norm(features, layer.norm1) @ layer.attention.qkv.weight.T
    q, k, v = qkv.view(count, 3, heads, channels // heads).unbind(1)
    scores = torch.einsum("ihd,jhd->hij", q.relu(), k.relu()) * together
    mixed = torch.einsum("hij,jhd->ihd", scores, v) / (scores.sum(-1).T[..., None] + 1e-6)
    out = layer.attention.out
    features = norm(features + mixed.flatten(1) @ out.weight.T + out.bias, layer.norm2)
    group, cells = channels // 4, tuple(voxels.coords.long().T)
    parts = []
    for number, weight in enumerate((layer.conv.near, layer.conv.along_x, layer.conv.along_y)):
        own = features[:, number * group : (number + 1) * group]
        grid = dense(voxels.with_features(own)).permute(0, 4, 1, 2, 3)
        taps = weight.permute(3, 0, 1, 2)[:, None]
        padding = [size // 2 for size in weight.shape[:3]]
        spread = F.conv3d(grid, taps, padding=padding, groups=group)
        parts.append(spread.permute(0, 2, 3, 4, 1)[cells])
    features = features + torch.cat([*parts, features[:, 3 * group :]], 1)
    inner = norm(features, layer.norm3) @ layer.linear1.weight.T + layer.linear1.bias
    return features + inner.relu() @ layer.linear2.weight.T + layer.linear2.bias


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("channels", "heads", "length"), [(24, 2, 5), (12, 1, 3), (20, 5, 7)])
def test_layer_equals_its_formulas(channels: int, heads: int, length: int, training: bool):
    layer = ScatterFormerLayer(channels, heads, length, 2 * channels)
    randomised(layer).double().train(training)
    voxels = random_voxels(150, channels=channels)
    stage = ScatterFormerStage([layer], (5, 5), channels, None)
    sorted_voxels = voxels.take(voxels.windows(stage.spec(voxels)).order)
    sorted_voxels.features.requires_grad_()
    want = written_out(layer, sorted_voxels, 5)
    result = stage.mix(sorted_voxels)
    assert torch.equal(result.coords, sorted_voxels.coords)
    assert_close(result.features, want)
    weights = [sorted_voxels.features, *layer.parameters()]
    upstream = torch.randn_like(want)
    ours = torch.autograd.grad(result.features, weights, upstream)
    theirs = torch.autograd.grad(want, weights, upstream)
    for got, expected in zip(ours, theirs, strict=True):
        assert_close(got, expected, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_inference_without_gradients_is_the_same(dtype: torch.dtype):
    net = model().eval().to(dtype)
    voxels = random_voxels(300)
    voxels = voxels.with_features(voxels.features.to(dtype))
    with_grad = net(voxels)
    with torch.no_grad():
        without = net(voxels)
    assert torch.equal(with_grad.coords, without.coords)
    error = (with_grad.features - without.features).abs().max()
    assert error < (1e-10 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_every_parameter_has_a_gradient(training: bool):
    net = model().train(training)
    voxels = random_voxels(300)
    voxels.features.requires_grad_()
    result = net(voxels)
    (result.features * torch.randn_like(result.features)).sum().backward()
    assert voxels.features.grad.any()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        # the bias of the keys shifts all scores of a pillar alike
        assert parameter.grad.any(), name


def test_result_is_a_grid_of_half_the_size():
    result = model().eval()(random_voxels(300))
    assert result.spatial_shape == (1, 7, 9)
    b, z, y, x = result.coords.long().unbind(1)
    key = (b * 7 + y) * 9 + x
    assert (key.diff() > 0).all()
    assert not z.any()


@given(st.integers(0, 2**16), st.integers(1, 200), st.booleans())
@settings(max_examples=15, deadline=None)
def test_order_of_voxels_does_not_matter(seed: int, count: int, training: bool):
    voxels = random_voxels(count, seed=seed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    net = model().train(training)
    first, second = net(voxels), copy.deepcopy(net)(voxels.take(order))
    assert torch.equal(first.coords, second.coords)
    assert_close(first.features, second.features, atol=1e-8, rtol=1e-6)


@given(st.integers(0, 2**16), st.lists(st.integers(0, 80), min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
def test_batches_may_be_split_and_joined(seed: int, sizes: list[int]):
    net = model().eval()
    frames = [
        random_voxels(count, batch_size=1, seed=seed + number) for number, count in enumerate(sizes)
    ]
    coords = [frame.coords.clone() for frame in frames]
    for number, rows in enumerate(coords):
        rows[:, 0] = number
    features = torch.cat([frame.features for frame in frames])
    whole = net(SparseVoxels(features, torch.cat(coords), frames[0].spatial_shape, len(sizes)))
    alone = torch.cat([net(frame).features for frame in frames])
    assert_close(whole.features, alone, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_voxels(count: int, training: bool):
    net = model().train(training)
    voxels = random_voxels(count, batch_size=3)
    voxels.features.requires_grad_()
    result = net(voxels)
    assert result.num_voxels <= 8 * count
    assert result.features.shape[1] == 24
    assert result.batch_size == 3
    result.features.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters())
    with torch.no_grad():
        assert net(voxels).features.isfinite().all()


def test_low_precision_runs_and_is_near():
    net = model().float().eval()
    voxels = random_voxels(300)
    voxels = voxels.with_features(voxels.features.float())
    want = net(voxels).features
    scale = want.abs().max()
    for grad in (True, False):
        with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype=torch.bfloat16):
            got = net(voxels).features.float()
        assert (got - want).abs().mean() < 0.05 * scale


def test_depthwise_weights_start_at_zero_by_default():
    net = ScatterFormer(GRID, 6, 24, 4, 2)
    normal = ScatterFormer(GRID, 6, 24, 4, 2, depthwise_init="normal")
    for ours, theirs in zip(net.stages, normal.stages, strict=True):
        for zero, drawn in zip(ours.layers, theirs.layers, strict=True):
            assert not any(weight.any() for weight in zero.conv.parameters())
            assert drawn.conv.near.shape == (3, 3, 3, 6)
            assert drawn.conv.along_x.shape == (1, 1, 5, 6)
            assert drawn.conv.along_y.shape == (1, 5, 1, 6)
            assert 0.7 < drawn.conv.near.std() < 1.3


def test_length_of_the_lines_is_its_own_setting():
    net = ScatterFormer(GRID, 6, 24, 5, 2, conv_size=9)
    assert net.stages[0].layers[0].conv.along_y.shape == (1, 9, 1, 6)


def test_frozen_parameters_are_the_projections_of_the_pooling():
    net = model()
    assert {id(p) for p in net.frozen_parameters()} == {
        id(net.pooling.qkv.weight),
        id(net.pooling.qkv.bias),
    }


@pytest.mark.parametrize("height", [1, 2, 30, 33, 34])
def test_heights_that_cannot_be_halved_twice_are_refused(height: int):
    with pytest.raises(ValueError, match=r"z a multiple of 4 .*change the height of a voxel"):
        ScatterFormer((36, 36, height))


def test_misuse_is_refused_by_name():
    with pytest.raises(ValueError, match="window 5 is odd"):
        ScatterFormer(GRID, window=5)
    with pytest.raises(ValueError, match="CrossWindowConv: length must be odd, got 4"):
        ScatterFormer(GRID, conv_size=4)
    with pytest.raises(ValueError, match="layers two counts >= 1"):
        ScatterFormer(GRID, layers=(3,))
    with pytest.raises(ValueError, match="CrossWindowConv: channels must be a multiple of 4"):
        ScatterFormer(GRID, channels=30, heads=3, pooling_heads=3)
    with pytest.raises(ValueError, match="ScatteredAttention: channels must be a multiple of head"):
        ScatterFormer(GRID, channels=32, heads=5)
    with pytest.raises(ValueError, match="init must be one of"):
        ScatterFormer(GRID, depthwise_init="ones")
    with pytest.raises(ValueError, match=r"grid of \(8, 13, 18\) cells .* got \(8, 13, 19\)"):
        model()(random_voxels(3, grid=(19, 13, 8)))
    with pytest.raises(ValueError, match=r"features must be \(N, 6\), got \(3, 5\)"):
        model()(random_voxels(3, channels=5))
