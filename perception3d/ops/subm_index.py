"""Finds the neighbours of every voxel under a convolution kernel."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from perception3d.checks import check_tensor
from perception3d.ops.library import fake_kernel, load_library

native = load_library()
MOST_TAPS = 32768


def subm_index(
    coords: Tensor, batch_size: int, spatial_shape: Sequence[int], kernel: Sequence[int]
) -> Tensor:
    """Find the voxel at every tap of a sub-manifold convolution, for every voxel.

    The table serves every convolution with this kernel shape on these voxels, in this row order;
    it is symmetric: j is at tap k of i exactly if i is at tap K - 1 - k of j.

    Args:
        coords: (N, 4) int32 rows (b, z, y, x), every cell at most once.
        batch_size: number of frames.
        spatial_shape: grid size in cells, order z, y, x.
        kernel: kernel size in cells, order z, y, x; odd, at most 32,768 taps together.

    Returns:
        neighbours: (N, K) int32 row of the voxel at cell + tap - kernel // 2, -1 where none is.
            Taps are numbered row-major over (z, y, x); K is their number.

    Raises:
        TypeError, ValueError: shape, dtype, an even or too large kernel, 2^62 cells or more.
        RuntimeError: a voxel outside the grid or the batch, two voxels in one cell (CPU; on CUDA
            such a voxel has no neighbours, and the first of two in a cell counts); on CUDA, 2^62
            or more cells times voxels.
    """
    check_tensor("subm_index", "coords", coords, ("N", 4), (torch.int32,))
    if batch_size < 1:
        raise ValueError(f"subm_index: batch_size must be >= 1, got {batch_size}")
    shape, taps = tuple(spatial_shape), tuple(kernel)
    if len(shape) != 3 or min(shape) < 1 or batch_size * prod(shape) >= 2**62:
        raise ValueError(
            "subm_index: spatial_shape must be three cell counts >= 1 (z, y, x), fewer than 2^62 "
            f"cells in all {batch_size} frames, got {shape}"
        )
    odd = len(taps) == 3 and all(size >= 1 and size % 2 == 1 for size in taps)
    if not odd or prod(taps) > MOST_TAPS:
        raise ValueError(
            f"subm_index: kernel must be three odd sizes (z, y, x), at most {MOST_TAPS} taps, "
            f"got {taps}"
        )
    neighbours: Tensor = native.subm_index(coords.contiguous(), batch_size, list(shape), list(taps))
    return neighbours


@fake_kernel("subm_index")
def _fake(coords: Tensor, batch_size: int, spatial_shape: list[int], kernel: list[int]) -> Tensor:
    return coords.new_empty((coords.shape[0], prod(kernel)))
