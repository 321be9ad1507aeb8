"""Set attention layers against torch's own attention."""

import pytest
import torch
from torch import nn

from perception3d.layers import SetAttention, SetEncoderLayer
from perception3d.ops.set_partition import set_partition
from perception3d.structures import TableRows


def one_window_tables(count: int, set_size: int) -> tuple[torch.Tensor, ...]:
    """Slots and members of the sets of one window that is a column of cells; y-major order."""
    cells = torch.zeros(count, 3, dtype=torch.int32)
    cells[:, 2] = torch.randperm(count).int()
    offsets = torch.tensor([0, count]) if count else torch.zeros(1, dtype=torch.int64)
    tables = set_partition(cells, torch.arange(count), offsets, set_size)
    voxel_of_slot, repeated, _, order, set_offsets = tables
    return voxel_of_slot[0], repeated[0], order[0], set_offsets


def torch_attention(layer: SetAttention, features, position, voxel_of_slot, repeated):
    """nn.MultiheadAttention per set with the same weights, then the first copy of each voxel."""
    plain = nn.MultiheadAttention(features.shape[1], layer.heads, batch_first=True)
    plain = plain.to(features.dtype)
    with torch.no_grad():
        plain.in_proj_weight.copy_(layer.qkv.weight)
        plain.in_proj_bias.copy_(layer.qkv.bias)
        plain.out_proj.load_state_dict(layer.out.state_dict())
    query = (features + position)[voxel_of_slot]
    mixed, _ = plain(query, query, features[voxel_of_slot], key_padding_mask=repeated)
    result = torch.full_like(features, float("nan"))
    result[voxel_of_slot[~repeated]] = mixed[~repeated]
    return result


@pytest.mark.parametrize(("count", "set_size"), [(1, 4), (5, 4), (8, 4), (23, 6)])
def test_equals_multi_head_attention_per_set(count: int, set_size: int):
    torch.manual_seed(count)
    layer = SetAttention(12, 3).double()
    nn.init.normal_(layer.qkv.bias)
    features, position = torch.randn(2, count, 12, dtype=torch.float64)
    tables = one_window_tables(count, set_size)
    expected = torch_attention(layer, features, position, *tables[:2])
    torch.testing.assert_close(layer(features, position, *tables[2:]), expected)


def many_voxels(dtype: torch.dtype = torch.float32):
    """A layer, rows enough for oneDNN, and their sets."""
    torch.manual_seed(0)
    layer = SetEncoderLayer(48, 4, 96).to(dtype)
    features, position = torch.randn(2, 300, 48, dtype=dtype)
    return layer, features.requires_grad_(), position, one_window_tables(300, 36)[2:]


def gradients(layer, features, position, tables):
    result = layer(features, position, *tables)
    slope = torch.arange(result.numel()).view(result.shape) % 7 / 7 - 0.4
    leaves = [features, *layer.parameters()]
    return result.detach(), *torch.autograd.grad(result, leaves, slope.to(result.dtype))


@pytest.mark.parametrize("autocast", [False, True])
def test_other_precision_equals_float64(autocast: bool):
    layer, features, position, tables = many_voxels()
    exact = many_voxels(torch.float64)[0]
    exact.load_state_dict(layer.state_dict())
    wanted = gradients(
        exact, features.detach().double().requires_grad_(), position.double(), tables
    )
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        ours = gradients(layer, features, position, tables)
    assert all(tensor.dtype == torch.float32 for tensor in ours)
    tolerance = 0.03 if autocast else 2e-5
    for a, b in zip(ours, wanted, strict=True):
        assert (a.double() - b).norm() <= tolerance * b.norm() + 1e-6
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        without = layer(features, position, *tables)
    assert (without.double() - wanted[0]).norm() <= tolerance * wanted[0].norm()


@pytest.mark.parametrize("autocast", [False, True])
def test_positions_from_a_table_equal_their_rows(autocast: bool):
    layer, features, position, tables = many_voxels()
    index = torch.randint(20, (300,))
    position = TableRows(position[:20], index)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        wanted = layer(features, position.expand(), *tables)
        torch.testing.assert_close(layer(features, position, *tables), wanted)
        with torch.no_grad():
            torch.testing.assert_close(
                layer(features, position, *tables), wanted, rtol=1e-5, atol=1e-5
            )


def test_attention_under_autocast_is_bfloat16():
    layer, features, position, tables = many_voxels()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.inner.attention(features, position, *tables).dtype == torch.bfloat16


def test_compiles_whole():
    layer, features, position, tables = many_voxels()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(features, position, *tables),
            layer(features, position, *tables),
            rtol=1e-5,
            atol=1e-5,
        )


def test_initial_state_is_that_of_multi_head_attention():
    layer = SetAttention(16, 2)
    assert layer.qkv.bias.abs().max() == 0
    assert layer.out.bias.abs().max() == 0
    bound = (6 / (16 + 48)) ** 0.5
    assert 0.9 * bound < layer.qkv.weight.abs().max() <= bound


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_encoder_layer_takes_no_voxels(activation: str):
    layer = SetEncoderLayer(8, 2, 16, activation)
    features = torch.randn(0, 8, requires_grad=True)
    result = layer(features, torch.randn(0, 8), *one_window_tables(0, 4)[2:])
    assert result.shape == (0, 8)
    result.sum().backward()
    assert layer.inner.attention.qkv.weight.grad is not None


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="channels must be a multiple of heads, got 10 and 4"):
        SetAttention(10, 4)
    with pytest.raises(ValueError, match="activation must be one of"):
        SetEncoderLayer(8, 2, 16, "swish")
