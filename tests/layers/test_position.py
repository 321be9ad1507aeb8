"""Position embeddings: the table of cells gives what the rows give."""

import pytest
import torch

from perception3d.layers import PositionEmbedding


def random_cells(window: tuple[int, int, int], count: int) -> torch.Tensor:
    return torch.stack([torch.randint(size, (count,)) for size in window], dim=1).int()


@pytest.mark.parametrize("window", [(1, 3, 4), (2, 3, 4)])
@pytest.mark.parametrize("normalize", [False, True])
def test_table_and_rows_agree_with_gradients(window: tuple[int, int, int], normalize: bool):
    torch.manual_seed(0)
    embedding = PositionEmbedding(5, window, normalize=normalize).eval()
    cells = random_cells(window, 100)
    table = embedding(cells)  # 100 voxels, fewer cells: by table
    rows = torch.cat([embedding(part) for part in cells.split(7)])  # 7 voxels: by row
    torch.testing.assert_close(table, rows)
    weight = torch.randn_like(table)
    (by_table,) = torch.autograd.grad((table * weight).sum(), embedding.linear1.weight)
    (by_rows,) = torch.autograd.grad((rows * weight).sum(), embedding.linear1.weight)
    torch.testing.assert_close(by_table, by_rows)


def test_input_is_counted_from_the_middle_in_order_x_y_z():
    embedding = PositionEmbedding(3, (4, 6, 3)).eval()
    with torch.no_grad():
        embedding.linear1.weight.copy_(torch.eye(3))
        embedding.linear1.bias.fill_(100.0)  # keeps the ReLU open
        embedding.linear2.weight.copy_(torch.eye(3))
        embedding.linear2.bias.fill_(-100.0 / (1 + 1e-5) ** 0.5)
    result = embedding(torch.tensor([[1, 5, 2]], dtype=torch.int32))
    torch.testing.assert_close(result, torch.tensor([[0.5, 2.0, -1.0]]), atol=1e-3, rtol=0)


def test_training_counts_every_voxel():
    embedding = PositionEmbedding(4, (1, 2, 2)).train()
    cells = random_cells((1, 2, 2), 50)
    embedding(cells)
    columns = torch.stack([cells[:, 2] - 1.0, cells[:, 1] - 1.0], dim=1)
    mean = embedding.linear1(columns).mean(0)
    torch.testing.assert_close(embedding.norm.running_mean, 0.1 * mean)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("count", [0, 1])
def test_few_voxels(training: bool, count: int):
    embedding = PositionEmbedding(4, (1, 1, 1)).train(training)
    result = embedding(torch.zeros(count, 3, dtype=torch.int32))
    assert result.shape == (count, 4)
    assert torch.isfinite(result).all()


def test_float64_and_autocast_keep_their_precision():
    embedding = PositionEmbedding(4, (1, 3, 3)).eval()
    cells = random_cells((1, 3, 3), 20)
    expected = embedding(cells)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(embedding(cells), expected)
    wide = embedding.double()(cells)
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), expected)
