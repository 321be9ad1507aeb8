"""Finds the outputs of a strided sparse convolution, and which voxel meets which of them."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from perception3d.checks import check_tensor
from perception3d.ops.library import fake_kernel, load_library
from perception3d.ops.subm_index import MOST_TAPS

native = load_library()


def sparse_index(
    coords: Tensor,
    batch_size: int,
    spatial_shape: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the outputs of a strided convolution: all cells that see at least one voxel.

    An output at cell o sees the cells o * stride - padding + tap; taps are numbered row-major over
    (z, y, x), K is their number.  The two tables name the same pairs from either side; swapped they
    are those of the inverse convolution.

    Args:
        coords: (N, 4) int32 rows (b, z, y, x), every cell at most once.
        batch_size: number of frames.
        spatial_shape: grid size in cells, order z, y, x.
        kernel, stride: sizes in cells, order z, y, x; at most 32,768 taps together.
        padding: cells added at both ends of the grid, order z, y, x.

    Returns:
        out_coords: (M, 4) int32 rows (b, z, y, x), ascending, on `output_shape` cells.
        inputs: (M, K) int32 row of the voxel at each tap of an output, -1 where none is.
        outputs: (N, K) int32 row of the output that sees a voxel at each tap, -1 where none does.

    Raises:
        TypeError, ValueError: shape, dtype, sizes, a kernel larger than the padded grid, too many
            cells.
        RuntimeError: a voxel outside the grid or the batch, two voxels in one cell that an output
            sees.
    """
    check_tensor("sparse_index", "coords", coords, ("N", 4), (torch.int32,))
    if batch_size < 1:
        raise ValueError(f"sparse_index: batch_size must be >= 1, got {batch_size}")
    for name, sizes, least in (
        ("spatial_shape", spatial_shape, 1),
        ("kernel", kernel, 1),
        ("stride", stride, 1),
        ("padding", padding, 0),
    ):
        if len(sizes) != 3 or min(sizes) < least or max(sizes) >= 2**31:
            raise ValueError(
                f"sparse_index: {name} must be three sizes >= {least} (z, y, x), got {tuple(sizes)}"
            )
    if prod(kernel) > MOST_TAPS:
        raise ValueError(
            f"sparse_index: kernel must have at most {MOST_TAPS} taps, got {tuple(kernel)}"
        )
    shape = output_shape(spatial_shape, kernel, stride, padding)
    if batch_size * prod(shape[:2]) * (shape[2] + 63) >= 2**62 or max(shape) >= 2**31:
        raise ValueError(
            f"sparse_index: {batch_size} frames of {shape} output cells are too many (2^62)"
        )
    tables = native.sparse_index(
        coords.contiguous(), batch_size, *map(list, (spatial_shape, kernel, stride, padding))
    )
    out_coords, inputs, outputs = tables
    return out_coords, inputs, outputs


def output_shape(
    spatial_shape: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
) -> tuple[int, int, int]:
    """Return the grid size (z, y, x) that a strided convolution leads to.

    Raises:
        ValueError: the kernel is larger than the padded grid.
    """
    z, y, x = (
        (cells + 2 * pad - size) // step + 1
        for cells, size, step, pad in zip(spatial_shape, kernel, stride, padding, strict=True)
    )
    if min(z, y, x) < 1:
        raise ValueError(
            f"sparse_index: a grid of {tuple(spatial_shape)} cells (z, y, x) is too small for "
            f"kernel {tuple(kernel)}, stride {tuple(stride)}, padding {tuple(padding)}"
        )
    return z, y, x


@fake_kernel("sparse_index")
def _fake(
    coords: Tensor,
    batch_size: int,
    spatial_shape: list[int],
    kernel: list[int],
    stride: list[int],
    padding: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    found = torch.library.get_ctx().new_dynamic_size()
    taps = prod(kernel)
    return (
        coords.new_empty((found, 4)),
        coords.new_empty((found, taps)),
        coords.new_empty((coords.shape[0], taps)),
    )
