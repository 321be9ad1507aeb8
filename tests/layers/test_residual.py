"""Sums that may take over the memory of one summand."""

import pytest
import torch

from perception3d.layers.residual import add_residual


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
