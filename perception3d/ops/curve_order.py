"""Places of voxels on a space-filling curve, and the voxels of a batch in the order of one."""

import torch
from torch import Tensor

from perception3d.checks import check_tensor
from perception3d.ops.library import fake_kernel, load_library

native = load_library()
MAX_RANK = 20
CURVES = ("hilbert", "z_order")


def curve_index(coords: Tensor, rank: int, *, shift: int = 0, curve: str = "hilbert") -> Tensor:
    """Number the cells of a cube of 2^rank cells along each axis in the order of a curve.

    The Hilbert curve starts at (0, 0, 0) and ends at (z, y, x) = (2^rank - 1, 0, 0); neighbours on
    it are neighbours in space.  Its first steps depend on the rank.  In Z order the bits of z, y
    and x take turns, z first.

    Source: J. Skilling, Programming the Hilbert curve, 2004; z, y, x are its axes 0, 1, 2, as in
    Voxel Mamba (NeurIPS 2024).

    Args:
        coords: (N, 4) int32 rows (b, z, y, x); the batch index plays no part.
        rank: bits per axis, 1..20.
        shift: cells added to z, y and x first.
        curve: "hilbert" or "z_order".

    Returns:
        (N,) int64, 0..8^rank - 1.

    Raises:
        TypeError, ValueError: shape, dtype, rank, shift, or an unknown curve.
        RuntimeError: a voxel outside the cube (CPU).
    """
    _check("curve_index", coords, rank, shift, curve)
    index: Tensor = native.curve_index(coords.contiguous(), rank, shift, curve == "hilbert")
    return index


def curve_order(
    coords: Tensor, batch_size: int, rank: int, *, shift: int = 0, curve: str = "hilbert"
) -> tuple[Tensor, Tensor, Tensor]:
    """Sort the voxels of every frame along a curve; voxels of one cell keep their order.

    Args:
        coords: (N, 4) int32 rows (b, z, y, x), in any order.
        batch_size: number of frames; frames without voxels are sequences of length 0.
        rank, shift, curve: as for `curve_index`.

    Returns:
        order: (N,) int64, voxels by frame, then along the curve.
        inverse: (N,) int64, place of each voxel: order[inverse[i]] = i.
        offsets: (batch_size + 1,) int64, frame b holds the places offsets[b] .. offsets[b + 1] - 1.

    Raises:
        TypeError, ValueError: shape, dtype, batch size, rank, shift, or an unknown curve.
        RuntimeError: a voxel outside the cube or the batch (CPU).
    """
    _check("curve_order", coords, rank, shift, curve)
    if batch_size < 0:
        raise ValueError(f"curve_order: batch_size must be >= 0, got {batch_size}")
    order, inverse, offsets = native.curve_order(
        coords.contiguous(), batch_size, rank, shift, curve == "hilbert"
    )
    return order, inverse, offsets


def _check(owner: str, coords: Tensor, rank: int, shift: int, curve: str) -> None:
    check_tensor(owner, "coords", coords, ("N", 4), (torch.int32,))
    if not 1 <= rank <= MAX_RANK:
        raise ValueError(f"{owner}: rank must be in 1..{MAX_RANK}, got {rank}")
    if not -(2**31) <= shift < 2**31:
        raise ValueError(f"{owner}: shift must fit 32 bits, got {shift}")
    if curve not in CURVES:
        raise ValueError(f"{owner}: curve must be 'hilbert' or 'z_order', got {curve!r}")


@fake_kernel("curve_index")
def _fake_index(coords: Tensor, rank: int, shift: int, hilbert: bool) -> Tensor:
    return coords.new_empty((coords.shape[0],), dtype=torch.int64)


@fake_kernel("curve_order")
def _fake_order(
    coords: Tensor, batch_size: int, rank: int, shift: int, hilbert: bool
) -> tuple[Tensor, Tensor, Tensor]:
    rows = (coords.shape[0],)
    return (
        coords.new_empty(rows, dtype=torch.int64),
        coords.new_empty(rows, dtype=torch.int64),
        coords.new_empty((batch_size + 1,), dtype=torch.int64),
    )
