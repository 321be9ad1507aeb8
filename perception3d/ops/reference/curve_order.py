"""Plain torch twins of `perception3d.ops.curve_order`, after the text of Skilling's paper."""

import torch
from torch import Tensor


def curve_index(coords: Tensor, rank: int, *, shift: int = 0, curve: str = "hilbert") -> Tensor:
    """Number cells along a curve; see `perception3d.ops.curve_index`."""
    axes = list((coords[:, 1:].long() + shift).unbind(1))
    if curve == "hilbert":
        _to_transposed_index(axes, rank)
    index = torch.zeros_like(axes[0])
    for bit in reversed(range(rank)):
        for axis in axes:
            index = (index << 1) | ((axis >> bit) & 1)
    if curve == "hilbert":
        # From the Gray code: every bit is the parity of the bits above it and itself.
        for step in (1, 2, 4, 8, 16, 32):
            index = index ^ (index >> step)
    return index


def _to_transposed_index(axes: list[Tensor], rank: int) -> None:
    """Undo the excess work, from the highest bit down; the axes are replaced."""
    for bit in reversed(range(1, rank)):
        low = (1 << bit) - 1
        for i in range(3):
            inverted = (axes[i] >> bit) & 1 == 1
            exchanged = (axes[0] ^ axes[i]) & low
            first = torch.where(inverted, axes[0] ^ low, axes[0] ^ exchanged)
            axes[i] = torch.where(inverted, axes[i], axes[i] ^ exchanged)
            axes[0] = first


def curve_order(
    coords: Tensor, batch_size: int, rank: int, *, shift: int = 0, curve: str = "hilbert"
) -> tuple[Tensor, Tensor, Tensor]:
    """Sort voxels along a curve; see `perception3d.ops.curve_order`."""
    by_index = torch.argsort(curve_index(coords, rank, shift=shift, curve=curve), stable=True)
    frame = coords[:, 0].long()
    order = by_index[torch.argsort(frame[by_index], stable=True)]
    inverse = torch.argsort(order)
    counts = torch.bincount(frame, minlength=batch_size)
    return order, inverse, torch.cat([counts.new_zeros(1), counts.cumsum(0)])
