"""Voxels for the tests of the sparse convolutions' kernels."""

import torch

# Kernel, stride, padding, order z, y, x.
STRIDED = [
    ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
    ((3, 1, 1), (2, 1, 1), (0, 0, 0)),
    ((5, 5, 5), (4, 4, 4), (2, 2, 2)),
    ((2, 3, 4), (1, 2, 5), (1, 0, 3)),
    ((1, 1, 1), (2, 3, 2), (0, 0, 0)),
]


def random_voxels(count, batch_size, shape, seed=0):
    """(N, 4) int32 rows (b, z, y, x), unique, shuffled; N <= count."""
    generator = torch.Generator().manual_seed(seed)
    cells = batch_size * shape[0] * shape[1] * shape[2]
    chosen = torch.randperm(cells, generator=generator)[:count]
    columns = []
    for size in reversed(shape):
        columns.append(chosen % size)
        chosen = chosen // size
    return torch.stack([chosen, *reversed(columns)], dim=1).int()
