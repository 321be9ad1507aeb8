"""Batch normalisation of few rows."""

import pytest
import torch
from torch import nn

from perception3d.layers import RowBatchNorm


def filled_norm() -> RowBatchNorm:
    norm = RowBatchNorm(3)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.running_var.copy_(torch.tensor([4.0, 1.0, 9.0]))
    return norm


def test_two_rows_and_more_are_plain_batch_norm():
    ours, plain, rows = RowBatchNorm(3), nn.BatchNorm1d(3), torch.randn(5, 3)
    assert torch.equal(ours(rows), plain(rows))
    assert torch.equal(ours.running_var, plain.running_var)
    assert ours.num_batches_tracked == 1


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_rows_use_and_keep_the_running_statistics(count: int):
    norm = filled_norm()
    rows = torch.tensor([[3.0, 3.0, 6.0]])[:count].requires_grad_()
    result = norm(rows)
    expected = torch.tensor([[1.0, 1.0, 1.0]])[:count]
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)
    result.sum().backward()
    assert norm.weight.grad is not None
    assert norm.num_batches_tracked == 0
    assert norm.running_mean.tolist() == [1.0, 2.0, 3.0]
