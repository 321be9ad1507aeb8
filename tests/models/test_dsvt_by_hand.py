"""DSVT against a slow transcription of its specification: dictionaries, loops, set by set.

Covers what no recorded case does: several blocks in several stages, both position modes, scaled
positions, negative shifts, strides in all axes, and any mixture of them.
"""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from perception3d.models.backbones import DSVT, DSVTStage
from perception3d.structures import SparseVoxels

Cell = tuple[int, int, int, int]  # b, x, y, z


def group_by_window(cells: list[Cell], window, shift) -> list[list[int]]:
    """Rows of each window, windows in order of (b, x, y, z)."""
    windows: dict[tuple, list[int]] = {}
    for row, (b, *cell) in enumerate(cells):
        key = (b, *((c + s) // w for c, s, w in zip(cell, shift, window, strict=True)))
        windows.setdefault(key, []).append(row)
    return [windows[key] for key in sorted(windows)]


def inside(cell: Cell, window, shift) -> tuple[int, int, int]:
    x, y, z = ((c + s) % w for c, s, w in zip(cell[1:], shift, window, strict=True))
    return x, y, z


def sets_of(cells: list[Cell], window, shift, set_size: int, order: int) -> list[list[int]]:
    """Distinct members of each set; order 0 = y-major, 1 = x-major."""
    result = []
    for rows in group_by_window(cells, window, shift):
        axes = (1, 0, 2) if order == 0 else (0, 1, 2)
        rows = sorted(rows, key=lambda r: tuple(inside(cells[r], window, shift)[a] for a in axes))
        count = math.ceil(len(rows) / set_size)
        for number in range(count):
            picked = [
                rows[((number * set_size + slot) * len(rows)) // (count * set_size)]
                for slot in range(set_size)
            ]
            result.append(sorted(set(picked)))
    return result


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Softmax attention of (Q, C) over (K, C), head by head."""
    parts = []
    for q, k, v in zip(
        query.chunk(heads, 1), key.chunk(heads, 1), value.chunk(heads, 1), strict=True
    ):
        parts.append((q @ k.T / math.sqrt(q.shape[1])).softmax(1) @ v)
    return torch.cat(parts, 1)


def layer_by_hand(layer: nn.Module, x: Tensor, pos: Tensor, sets: list[list[int]]) -> Tensor:
    inner = layer.inner
    weights, biases = inner.attention.qkv.weight.chunk(3), inner.attention.qkv.bias.chunk(3)
    mixed = torch.zeros_like(x)
    for rows in sets:
        q, k = (((x + pos)[rows] @ weights[i].T + biases[i]) for i in (0, 1))
        v = x[rows] @ weights[2].T + biases[2]
        mixed[rows] = attend(q, k, v, inner.attention.heads)
    y = inner.norm1(x + inner.attention.out(mixed))
    y = inner.norm2(y + inner.linear2(nn.functional.gelu(inner.linear1(y))))
    return layer.norm(y + x)


def position_by_hand(
    embedding: nn.Module, cells: list[Cell], window, shift, scaled: bool
) -> Tensor:
    rows = []
    for cell in cells:
        row = [c - w / 2 for c, w in zip(inside(cell, window, shift), window, strict=True)]
        if scaled:
            row = [c / w * 2 * 3.1415 for c, w in zip(row, window, strict=True)]
        rows.append(row if window[2] > 1 else row[:2])
    hidden = embedding.linear1(torch.tensor(rows, dtype=torch.float64))
    return embedding.linear2(torch.relu(embedding.norm(hidden)))


def pool_by_hand(
    pooling: nn.Module, cells: list[Cell], x: Tensor, stride
) -> tuple[list[Cell], Tensor]:
    weights, biases = pooling.qkv.weight.chunk(3), pooling.qkv.bias.chunk(3)
    blocks: dict[Cell, Tensor] = {}
    for row, (b, *cell) in enumerate(cells):
        key = (b, *(c // s for c, s in zip(cell, stride, strict=True)))
        rx, ry, rz = (c % s for c, s in zip(cell, stride, strict=True))
        block = blocks.setdefault(key, torch.zeros(math.prod(stride), x.shape[1], dtype=x.dtype))
        block[(rx * stride[1] + ry) * stride[2] + rz] = x[row]
    coarse, rows = sorted(blocks), []
    for key in coarse:
        block = blocks[key]
        query = block.max(0, keepdim=True).values
        q = query @ weights[0].T + biases[0]
        k = (block + pooling.position) @ weights[1].T + biases[1]
        v = block @ weights[2].T + biases[2]
        rows.append(pooling.norm(pooling.out(attend(q, k, v, 8)) + query))
    return coarse, torch.cat(rows)


def dsvt_by_hand(model: DSVT, stages, settings: dict, cells: list[Cell], x: Tensor):
    grid, number = list(model.grid_size), 0
    for stage, module in zip(stages, model.stages, strict=True):
        windows = [
            stage.window,
            tuple(w * h for w, h in zip(stage.window, settings["hybrid_factor"], strict=True)),
        ]
        shifts = [
            (*shift[:2], 0 if grid[2] == window[2] else shift[2])
            for shift, window in zip(stage.shifts, windows, strict=True)
        ]
        for block in module.blocks:
            own, before = number % 2, x
            for layer in (0, 1):
                told = layer if settings["position"] == "as_released" else own
                pos = position_by_hand(
                    block.positions[layer],
                    cells,
                    windows[told],
                    shifts[told],
                    settings["normalize_pos"],
                )
                sets = sets_of(cells, windows[own], shifts[own], stage.set_size, layer)
                x = layer_by_hand(block.layers[layer], x, pos, sets)
            x = block.norm(x + before)
            number += 1
        if stage.pool_stride:
            cells, x = pool_by_hand(module.pooling, cells, x, stage.pool_stride)
            grid = [math.ceil(n / s) for n, s in zip(grid, stage.pool_stride, strict=True)]
    return cells, x


PILLARS = ((14, 11, 1), [DSVTStage((4, 3, 1), 5, 3, ((0, 0, 0), (-2, 1, 0)))])
VOXELS = (
    (13, 12, 8),
    [
        DSVTStage((4, 4, 8), 6, 1, ((0, 0, 0), (2, 2, 0)), (1, 1, 4)),
        DSVTStage((5, 3, 2), 4, 2, ((1, 0, 0), (2, -1, 1)), (2, 2, 2)),
        DSVTStage((3, 3, 1), 3, 1, ((0, 0, 0), (1, 1, 0))),
    ],
)
TALL = (
    (13, 12, 8),
    [
        DSVTStage((4, 4, 3), 6, 2, ((0, 0, 1), (2, 2, -1)), (3, 2, 8)),
        DSVTStage((3, 3, 1), 3, 1, ((0, 0, 0), (1, 1, 0))),
    ],
)


@pytest.mark.parametrize("shape", [PILLARS, VOXELS, TALL], ids=["pillars", "voxels", "tall"])
@pytest.mark.parametrize("position", ["as_released", "corrected"])
@pytest.mark.parametrize("normalize_pos", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_equals_the_specification(shape, position: str, normalize_pos: bool, training: bool):
    grid, stages = shape
    torch.manual_seed(len(position) + 2 * normalize_pos)
    settings = {
        "hybrid_factor": (2, 2, 1),
        "position": position,
        "normalize_pos": normalize_pos,
    }
    model = DSVT(grid, stages, 16, 4, 24, **settings).double().train(training)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    flat = torch.randperm(3 * math.prod(grid))[:170]
    b, x, y, z = torch.unravel_index(flat, (3, *grid))
    coords = torch.stack([b, z, y, x], 1).int()
    features = torch.randn(170, 16, dtype=torch.float64)
    cells = list(zip(b.tolist(), x.tolist(), y.tolist(), z.tolist(), strict=True))
    with torch.no_grad():
        result = model(SparseVoxels(features, coords, tuple(reversed(grid)), 3))
        expected_cells, expected = dsvt_by_hand(model, stages, settings, cells, features)
    assert [(b, x, y, z) for b, z, y, x in result.coords.tolist()] == expected_cells
    assert_close(result.features, expected)
