"""Operations of our operators, counted by hand."""

import torch

from perception3d.benchmark.operator_flops import count_flops
from perception3d.ops import (
    MambaParameters,
    TransformerParameters,
    depthwise_conv,
    mamba_mixer,
    scattered_linear_attention,
    scattered_linear_attention_qkv,
    set_attention_qk,
    set_transformer,
    sparse_conv,
    sparse_index,
    subm_conv,
    subm_index,
)


def count(run) -> int:
    with torch.no_grad():
        return count_flops(run)[1]


# Cells 0, 1 and 3 of a line: with a kernel of three, 3 own pairs and one on either side of 0 | 1.
COORDS = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 3]], dtype=torch.int32)
PAIRS = 5


def test_convolutions():
    table = subm_index(COORDS, 1, (1, 1, 4), (1, 1, 3))
    features, weight = torch.ones(3, 6), torch.ones(3, 6, 5)
    assert count(lambda: subm_conv(features, table, weight)) == 2 * PAIRS * 6 * 5
    kernels = [(table, torch.ones(3, 2), 0), (table, torch.ones(3, 3), 2)]
    assert count(lambda: depthwise_conv(features, kernels)) == 2 * PAIRS * (2 + 3)
    # Stride 2, padding 1: outputs 0 (cells 0, 1), 1 (cells 1, 3) -> four pairs
    _, inputs, outputs = sparse_index(COORDS, 1, (1, 1, 4), (1, 1, 3), (1, 1, 2), (0, 0, 1))
    assert count(lambda: sparse_conv(features, inputs, outputs, weight)) == 2 * 4 * 6 * 5


def test_linear_attention():
    query, value, offsets = torch.ones(7, 2, 4), torch.ones(7, 2, 3), torch.tensor([0, 5, 7])
    expected = 4 * 7 * 2 * 4 * (3 + 1)
    assert count(lambda: scattered_linear_attention(query, query, value, offsets)) == expected
    qkv = torch.ones(7, 3, 2, 4)
    assert count(lambda: scattered_linear_attention_qkv(qkv, offsets)) == 4 * 7 * 2 * 4 * (4 + 1)


def test_set_attention_of_one_projection():
    query_key, value = torch.ones(7, 2, 2, 4), torch.ones(7, 2, 4)
    order, offsets = torch.arange(7), torch.tensor([0, 5, 7])
    operations = count(lambda: set_attention_qk(query_key, value, order, offsets))
    assert operations == 2 * 2 * (25 + 4) * 8


def test_set_transformer():
    def linear_map(outputs, inputs):
        return torch.ones(outputs, inputs), torch.ones(outputs)

    maps = linear_map(12, 4), linear_map(4, 4), linear_map(10, 4), linear_map(4, 10)
    norm = torch.ones(4), torch.ones(4)
    layer = TransformerParameters(2, maps, (norm, norm))
    rows, table, index = torch.ones(7, 4), torch.ones(3, 4), torch.zeros(7, dtype=torch.int64)
    order, offsets = torch.arange(7), torch.tensor([0, 5, 7])
    of_maps = 2 * 7 * (12 * 4 + 4 * 4 + 10 * 4 + 4 * 10)
    of_table = 2 * 3 * 8 * 4
    of_attention = 2 * 2 * (5 * 5 + 2 * 2) * 4
    found = count(lambda: set_transformer(rows, table, index, order, offsets, layer))
    assert found == of_maps + of_table + of_attention


def test_mamba_mixer():
    one = torch.ones(6)
    mixer = MambaParameters(
        norm=torch.ones(4),
        in_proj=torch.ones(12, 4),
        conv_weight=torch.ones(6, 3),
        conv_bias=one,
        x_proj=torch.ones(2 + 2 * 5, 6),
        step_proj=torch.ones(6, 2),
        step_bias=one,
        A=-torch.ones(6, 5),
        skip=one,
        out_proj=torch.ones(4, 6),
    )
    found = count(lambda: mamba_mixer(torch.ones(7, 4), torch.tensor([0, 7]), mixer))
    assert found == 2 * 7 * (12 * 4 + 12 * 6 + 6 * 2 + 4 * 6)
