"""Pillar pooling against torch's multi-head attention over padded pillars."""

import pytest
import torch
from torch import nn

from perception3d.layers.pillar_pooling import PillarPooling
from perception3d.structures import SparseVoxels

SHAPE = (5, 4, 6)


def random_voxels(count: int, channels: int = 16, seed: int = 0) -> SparseVoxels:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.cartesian_prod(*(torch.arange(size) for size in (2, *SHAPE)))
    rows = torch.randperm(len(cells), generator=generator)[:count]
    features = torch.randn(count, channels, generator=generator, dtype=torch.float64)
    return SparseVoxels(features, cells[rows].int(), SHAPE, 2)


def padded(pooling: PillarPooling, voxels: SparseVoxels) -> dict[tuple, torch.Tensor]:
    """{(b, y, x): pooled row} by torch's module, with one padded key list per pillar."""
    channels = voxels.features.shape[1]
    attention = nn.MultiheadAttention(channels, pooling.heads, batch_first=True).double()
    attention.in_proj_weight = pooling.qkv.weight
    attention.in_proj_bias = pooling.qkv.bias
    attention.out_proj = pooling.out
    pillars: dict[tuple, list[int]] = {}
    for row, (b, _, y, x) in enumerate(voxels.coords.tolist()):
        pillars.setdefault((b, y, x), []).append(row)
    pooled = {}
    for key, rows in sorted(pillars.items()):
        value = torch.zeros(1, SHAPE[0], channels, dtype=torch.float64)
        absent = torch.ones(1, SHAPE[0], dtype=torch.bool)
        heights = voxels.coords[rows, 1].long()
        value = value.index_put((torch.zeros_like(heights), heights), voxels.features[rows])
        absent[0, heights] = False
        query = voxels.features[rows].amax(0).clamp(min=0)[None, None]
        mixed, _ = attention(query, value + pooling.position, value, key_padding_mask=absent)
        pooled[key] = pooling.norm(mixed + query)[0, 0]
    return pooled


def build(channels: int = 16, heads: int = 4) -> PillarPooling:
    torch.manual_seed(3)
    pooling = PillarPooling(channels, SHAPE[0], heads).double()
    for parameter in pooling.parameters():
        nn.init.normal_(parameter, std=0.5)
    return pooling


@pytest.mark.parametrize("heads", [1, 4, 8])
def test_equals_attention_over_padded_pillars(heads: int):
    pooling, voxels = build(heads=heads), random_voxels(90)
    voxels.features.requires_grad_()
    result = pooling(voxels)
    expected = padded(pooling, voxels)
    assert [(b, y, x) for b, z, y, x in result.coords.tolist()] == list(expected)
    assert not result.coords[:, 1].any()
    assert result.spatial_shape == (1, 4, 6)
    stacked = torch.stack(list(expected.values()))
    torch.testing.assert_close(result.features, stacked)
    weights = [voxels.features, *pooling.parameters()]
    upstream = torch.randn_like(stacked)
    # no ties in random numbers: the maximum's gradient has one place in both
    got = torch.autograd.grad(result.features, weights, upstream)
    for ours, theirs in zip(got, torch.autograd.grad(stacked, weights, upstream), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_every_maximum_gets_the_whole_gradient_and_a_dead_pillar_none():
    features = torch.tensor([[1.0, -1.0], [1.0, -2.0], [0.5, 0.0]]).requires_grad_()
    coords = torch.tensor([[0, 0, 0, 0], [0, 3, 0, 0], [0, 1, 0, 1]], dtype=torch.int32)
    voxels = SparseVoxels(features, coords, SHAPE, 1)
    pooling = PillarPooling(2, SHAPE[0], 1)
    with torch.no_grad():
        pooling.qkv.weight.zero_()  # every value is 0: the result is LayerNorm(query)
        pooling.norm = nn.Identity()
    pooling(voxels).features.sum().backward()
    assert features.grad.tolist() == [[1, 0], [1, 0], [1, 1]]


def test_order_of_voxels_does_not_matter():
    pooling, voxels = build(), random_voxels(70)
    shuffled = voxels.take(torch.randperm(70, generator=torch.Generator().manual_seed(1)))
    first, second = pooling(voxels), pooling(shuffled)
    assert torch.equal(first.coords, second.coords)
    torch.testing.assert_close(first.features, second.features)


def test_no_voxels():
    pooling = build()
    pooled = pooling(random_voxels(0))
    assert pooled.features.shape == (0, 16)
    pooled.features.sum().backward()
    assert not any(parameter.grad.any() for parameter in pooling.parameters())


def test_autocast_keeps_sums_in_float():
    pooling, voxels = build().float(), random_voxels(90)
    voxels = voxels.with_features(voxels.features.float())
    want = pooling(voxels).features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = pooling(voxels).features
    torch.testing.assert_close(got.float(), want, atol=0.1, rtol=0.05)


def test_misuse_is_refused_by_name():
    with pytest.raises(ValueError, match="PillarPooling: channels must be a multiple of its 8"):
        PillarPooling(12, 5)
    with pytest.raises(ValueError, match="PillarPooling: the grid must be 4 cells high, got 5"):
        PillarPooling(16, 4)(random_voxels(3))
