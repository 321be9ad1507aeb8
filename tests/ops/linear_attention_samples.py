"""Inputs of linear attention, and how its results are compared, for several files of tests."""

import torch

# Around the sizes of blocks (64 rows) and of work items (512 rows), empty ones among them.
LENGTHS = (0, 1, 3, 63, 64, 65, 0, 511, 513, 1, 1100, 130, 0)


def offsets_of(lengths):
    return torch.tensor([0, *lengths]).cumsum(0)


def random_inputs(lengths, heads, width, value_width, *, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    rows = sum(lengths)
    widths = (width, width, value_width)
    return [torch.randn(rows, heads, w, generator=generator).to(dtype) for w in widths]


def leaves(tensors, dtype=None):
    return [tensor.detach().to(dtype or tensor.dtype).requires_grad_() for tensor in tensors]


def gradients(attend, inputs, grad, offsets, **options):
    """Result and gradients of every input."""
    result = attend(*inputs, offsets, **options)
    return [result, *torch.autograd.grad(result, inputs, grad.to(result.dtype))]


def assert_near(got, wanted, tolerance):
    """Largest error relative to the largest value."""
    assert got.shape == wanted.shape
    if wanted.numel():
        scale = max(wanted.abs().max().item(), 1e-3)
        assert (got.double() - wanted.double()).abs().max().item() <= tolerance * scale
