"""Inputs that several tests of the index operators share."""

from contextlib import contextmanager

import torch
from hypothesis import strategies as st


def random_coords(count, batch_size, spatial_shape, seed):
    """Unique voxels, (N, 4) int32 rows (b, z, y, x), shuffled; N <= count."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (batch_size, *spatial_shape)
    columns = [torch.randint(0, size, (count,), generator=generator) for size in sizes]
    rows = torch.stack(columns, dim=1).unique(dim=0).int()
    return rows[torch.randperm(rows.shape[0], generator=generator)]


def random_points(count, seed, *, extent=60.0, columns=5):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, columns, generator=generator)
    return points * torch.tensor([extent, extent, 3.0] + [1.0] * (columns - 3))


def assert_same(ours, reference):
    """Equal tables: values, shapes and dtypes."""
    for index, (a, b) in enumerate(zip(ours, reference, strict=True)):
        assert a.dtype == b.dtype, f"table {index}: {a.dtype} instead of {b.dtype}"
        assert a.shape == b.shape, f"table {index}: {a.shape} instead of {b.shape}"
        assert torch.equal(a, b), f"table {index} differs"


@contextmanager
def threads(count):
    """Run with a number of torch threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@st.composite
def voxel_sets(draw, max_voxels=40):
    """(coords, batch_size, spatial_shape) of any size, unsorted, unique."""
    batch_size = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, size)) for size in (4, 12, 12))
    cells = st.tuples(st.integers(0, batch_size - 1), *(st.integers(0, s - 1) for s in shape))
    rows = draw(st.lists(cells, unique=True, max_size=max_voxels))
    return torch.tensor(rows, dtype=torch.int32).reshape(-1, 4), batch_size, shape
