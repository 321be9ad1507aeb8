"""What follows a layer and may take over the memory of what it made."""

import pytest
import torch

from perception3d.layers.normalization import RowBatchNorm
from perception3d.layers.residual import add_residual, normalise, relu_of


def test_without_gradients_the_memory_of_the_made_rows_is_used():
    made, kept = torch.randn(5, 3), torch.randn(5, 3)
    wanted, before = made + kept, kept.clone()
    with torch.no_grad():
        found = add_residual(made, kept)
    assert found.data_ptr() == made.data_ptr()
    assert torch.equal(found, wanted)
    assert torch.equal(kept, before)


def test_with_gradients_both_summands_stay():
    made, kept = torch.randn(2, 5, 3, requires_grad=True)
    before = made.detach().clone()
    assert torch.equal(add_residual(made, kept), before + kept)
    assert torch.equal(made, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_unlike_types_are_promoted(dtype):
    made, kept = torch.randn(5, 3).to(dtype), torch.randn(5, 3)
    with torch.no_grad():
        found = add_residual(made, kept)
    assert found.dtype == (made + kept).dtype
    assert torch.equal(found, made + kept)


def used_norm(channels):
    norm = RowBatchNorm(channels).eval()
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean"):
            getattr(norm, name).normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm


@pytest.mark.parametrize("follow", [relu_of, lambda made: normalise(made, used_norm(3))])
def test_what_follows_works_in_place_without_gradients_only(follow):
    torch.manual_seed(0)
    made = torch.randn(5, 3, requires_grad=True)
    before = made.detach().clone()
    torch.manual_seed(1)
    wanted = follow(made)
    assert wanted.requires_grad
    assert torch.equal(made, before)
    assert not torch.equal(wanted, before)
    torch.manual_seed(1)
    with torch.no_grad():
        found = follow(made)
    assert found.data_ptr() == made.data_ptr()
    torch.testing.assert_close(found, wanted)


def test_a_norm_in_training_or_of_another_dtype_leaves_the_rows():
    made, norm = torch.randn(50, 3), used_norm(3)
    before = made.clone()
    with torch.no_grad():
        found = normalise(made, norm.train())
    assert torch.equal(made, before)
    torch.testing.assert_close(found.mean(0), norm.bias.detach(), rtol=0, atol=1e-5)
    halves = made.bfloat16()
    with torch.no_grad():
        found = normalise(halves, norm.eval())
    assert torch.equal(halves, before.bfloat16())
    torch.testing.assert_close(found.float(), norm(before), rtol=2e-2, atol=2e-2)
