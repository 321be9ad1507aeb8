"""Position embeddings: the table of cells gives what the rows give."""

import pytest
import torch

from perception3d.layers import ImplicitWindowEmbedding, PositionEmbedding
from perception3d.structures import SparseVoxels


def random_cells(window: tuple[int, int, int], count: int) -> torch.Tensor:
    return torch.stack([torch.randint(size, (count,)) for size in window], dim=1).int()


@pytest.mark.parametrize("window", [(1, 3, 4), (2, 3, 4)])
@pytest.mark.parametrize("normalize", [False, True])
def test_table_and_rows_agree_with_gradients(window: tuple[int, int, int], normalize: bool):
    torch.manual_seed(0)
    embedding = PositionEmbedding(5, window, normalize=normalize).eval()
    cells = random_cells(window, 100)
    found = embedding(cells)  # 100 voxels, fewer cells: by table
    assert found.table.shape == (window[0] * 12, 5)
    table = found.expand()
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
    expected = embedding(cells).expand()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(embedding(cells).expand(), expected)
    wide = embedding.double()(cells).expand()
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.float(), expected)


def implicit_columns(voxels: SparseVoxels, window: int) -> torch.Tensor:
    """The nine inputs, cell by cell, as the published code writes them down."""
    depth, height, _ = voxels.spatial_shape
    count, half = height // window + 1, window // 2
    rows = [
        [z / depth, y // window / count, x // window / count, y % window / window]
        + [x % window / window, (y + half) // window / count, (x + half) // window / count]
        + [(y + half) % window / window, (x + half) % window / window]
        for _, z, y, x in voxels.coords.tolist()
    ]
    return torch.tensor(rows)


@pytest.mark.parametrize("window", [12, 5, 1])
def test_implicit_windows_by_hand(window: int):
    generator = torch.Generator().manual_seed(0)
    sizes = (2, 7, 31, 40)  # not square: both axes go by the count along y
    columns = [torch.randint(size, (50,), generator=generator) for size in sizes]
    coords = torch.stack(columns, 1).int()
    voxels = SparseVoxels(torch.zeros(50, 1), coords, (7, 31, 40), 2)
    embedding = ImplicitWindowEmbedding(6, window).eval()
    with torch.no_grad():
        embedding.norm.running_mean.uniform_(-1, 1)
        embedding.norm.running_var.uniform_(0.5, 2)
    hidden = embedding.norm(embedding.linear1(implicit_columns(voxels, window)))
    wanted = embedding.linear2(hidden.relu())
    torch.testing.assert_close(embedding(voxels), wanted)
    assert embedding.double()(voxels).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(embedding.float()(voxels), wanted)
    with pytest.raises(ValueError, match="window must be >= 1, got 0"):
        ImplicitWindowEmbedding(6, 0)


@pytest.mark.parametrize("count", [0, 1])
def test_implicit_windows_of_few_voxels(count: int):
    coords = torch.zeros(count, 4, dtype=torch.int32)
    embedding = ImplicitWindowEmbedding(6).train()
    result = embedding(SparseVoxels(torch.zeros(count, 1), coords, (3, 9, 9), 1))
    assert result.shape == (count, 6)
    assert result.isfinite().all()
    assert int(embedding.norm.num_batches_tracked) == 0
