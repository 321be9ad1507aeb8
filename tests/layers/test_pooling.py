"""Pooling against a dense buffer of all slots."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perception3d.layers import AttentionPooling, LinearPooling, MaxPooling, pool_cells
from perception3d.structures import SparseVoxels

SHAPE = (8, 6, 7)
STRIDES = [(4, 1, 1), (2, 2, 3), (1, 1, 1), (8, 6, 7)]


def random_voxels(count: int, channels: int, dtype: torch.dtype = torch.float64) -> SparseVoxels:
    depth, height, width = SHAPE
    flat = torch.randperm(2 * depth * height * width)[:count]
    z, y, x = flat // (height * width) % depth, flat // width % height, flat % width
    coords = torch.stack([flat // (depth * height * width), z, y, x], dim=1).int()
    return SparseVoxels(torch.randn(count, channels, dtype=dtype), coords, SHAPE, 2)


def dense_slots(voxels: SparseVoxels, stride: tuple[int, int, int]) -> dict[tuple, torch.Tensor]:
    """{(b, x, y, z) of the coarse cell: (V, C) features, empty slots 0}, built cell by cell."""
    volume = stride[0] * stride[1] * stride[2]
    cells: dict[tuple, torch.Tensor] = {}
    for row, (b, z, y, x) in enumerate(voxels.coords.tolist()):
        key = (b, x // stride[2], y // stride[1], z // stride[0])
        slot = (x % stride[2] * stride[1] + y % stride[1]) * stride[0] + z % stride[0]
        rows = cells.setdefault(key, voxels.features.new_zeros(volume, voxels.features.shape[1]))
        rows[slot] = voxels.features[row]
    return cells


def expected_coords(cells: dict[tuple, torch.Tensor]) -> torch.Tensor:
    rows = [(b, z, y, x) for b, x, y, z in sorted(cells)]
    return torch.tensor(rows, dtype=torch.int32).reshape(-1, 4)


def stacked(cells: dict[tuple, torch.Tensor]) -> torch.Tensor:
    return torch.stack([cells[key] for key in sorted(cells)])


@pytest.mark.parametrize("stride", STRIDES)
def test_maximum_counts_empty_slots_as_zero(stride: tuple[int, int, int]):
    voxels = random_voxels(60, 4)
    pooled = MaxPooling(stride)(voxels)
    cells = dense_slots(voxels, stride)
    assert torch.equal(pooled.coords, expected_coords(cells))
    assert torch.equal(pooled.features, stacked(cells).max(1).values)
    assert pooled.spatial_shape == tuple(-(-n // s) for n, s in zip(SHAPE, stride, strict=True))


@pytest.mark.parametrize("stride", STRIDES)
def test_linear_sees_slots_x_major(stride: tuple[int, int, int]):
    voxels = random_voxels(60, 4)
    pooling = LinearPooling(4, 6, stride).double()
    slots = stacked(dense_slots(voxels, stride)).flatten(1)
    expected = F.layer_norm(slots @ pooling.linear.weight.T, (6,))
    torch.testing.assert_close(pooling(voxels).features, expected)


@pytest.mark.parametrize("stride", STRIDES)
def test_attention_equals_multi_head_attention_over_all_slots(stride: tuple[int, int, int]):
    torch.manual_seed(0)
    voxels = random_voxels(60, 16)
    pooling = AttentionPooling(16, stride).double()
    nn.init.normal_(pooling.qkv.bias)
    plain = nn.MultiheadAttention(16, 8, batch_first=True).double()
    with torch.no_grad():
        plain.in_proj_weight.copy_(pooling.qkv.weight)
        plain.in_proj_bias.copy_(pooling.qkv.bias)
        plain.out_proj.load_state_dict(pooling.out.state_dict())
    leaf = voxels.features.clone().requires_grad_()
    got = pooling(voxels.with_features(leaf)).features
    weight = torch.randn_like(got)
    parameters = [leaf, pooling.position, pooling.qkv.weight, pooling.qkv.bias]
    gradients = torch.autograd.grad((got * weight).sum(), parameters)

    dense_leaf = voxels.features.clone().requires_grad_()
    slots = stacked(dense_slots(voxels.with_features(dense_leaf), stride))
    query = slots.max(1, keepdim=True).values
    mixed, _ = plain(query, slots + pooling.position, slots)
    expected = F.layer_norm((mixed + query).squeeze(1), (16,))
    torch.testing.assert_close(got, expected)
    parameters = [dense_leaf, pooling.position, plain.in_proj_weight, plain.in_proj_bias]
    wanted = torch.autograd.grad((expected * weight).sum(), parameters)
    for ours, theirs in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "pooling",
    [MaxPooling((4, 1, 1)), LinearPooling(8, 8, (4, 1, 1)), AttentionPooling(8, (4, 1, 1))],
)
def test_no_voxels(pooling: nn.Module):
    pooled = pooling(random_voxels(0, 8, torch.float32))
    assert pooled.features.shape == (0, 8)
    assert pooled.coords.shape == (0, 4)
    assert pooled.batch_size == 2


def test_cells_are_found_once_per_stride():
    voxels = random_voxels(20, 2)
    assert pool_cells(voxels, (2, 1, 1)) is pool_cells(voxels, (2, 1, 1))
    assert pool_cells(voxels, (2, 1, 1)) is not pool_cells(voxels, (4, 1, 1))


def test_heads_must_divide_channels():
    with pytest.raises(ValueError, match="multiple of its 8 heads, got 12"):
        AttentionPooling(12, (4, 1, 1))
