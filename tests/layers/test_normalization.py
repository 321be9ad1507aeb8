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
    torch.testing.assert_close(ours(rows), plain(rows))
    torch.testing.assert_close(ours.running_mean, plain.running_mean)
    torch.testing.assert_close(ours.running_var, plain.running_var)
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


def test_gradients_in_training():
    rows = torch.randn(6, 3, dtype=torch.float64).requires_grad_()
    norm = filled_norm().double()

    def run(rows, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (rows,))

    weight, bias = (torch.randn(3, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(run, (rows, weight, bias))
    run(rows.detach(), weight, bias).sum().backward()  # rows without gradient
    torch.testing.assert_close(bias.grad, torch.full_like(bias, 6))


def test_statistics_of_many_rows_are_exact():
    rows = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0)) + 3
    want = nn.BatchNorm1d(64).double()(rows.double())
    ours, plain = (
        (norm(64)(rows) - want).square().mean() for norm in (RowBatchNorm, nn.BatchNorm1d)
    )
    assert ours.sqrt() < 3e-7
    assert plain > 4 * ours


def test_settings_of_torch_are_kept():
    rows = torch.randn(7, 3)
    for options in ({"affine": False}, {"track_running_stats": False}, {"momentum": None}):
        assert torch.equal(RowBatchNorm(3, **options)(rows), nn.BatchNorm1d(3, **options)(rows))
    with pytest.raises(ValueError, match="expected 2D or 3D input"):
        RowBatchNorm(3)(torch.randn(2, 3, 4, 5))


def test_a_norm_may_be_shared_by_few_and_many_rows():
    norm = RowBatchNorm(3)
    one, many = torch.randn(1, 3, requires_grad=True), torch.randn(9, 3)
    (norm(one).sum() + norm(many).sum()).backward()
    torch.testing.assert_close(one.grad, torch.full((1, 3), (1 + norm.eps) ** -0.5))
