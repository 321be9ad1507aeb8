"""Linear attention inside windows in torch operators.

All take (N, H, D) query and key before the relu, (N, H, E) value, and where the windows begin.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

EPSILON = 1e-6


@dataclass(frozen=True)
class SortedWindows:
    """Windows of rows that are sorted by window; what can be known beforehand is not timed.

    Attributes:
        offsets: (W + 1,) int64.
    """

    offsets: Tensor

    @cached_property
    def lengths(self) -> list[int]:
        """Rows of each window."""
        lengths: list[int] = self.offsets.diff().tolist()
        return lengths

    @cached_property
    def window_of_row(self) -> Tensor:
        """(N,) int64."""
        windows = torch.arange(len(self.lengths), device=self.offsets.device)
        return windows.repeat_interleave(self.offsets.diff())

    @cached_property
    def slot_of_row(self) -> Tensor:
        """(N,) int64, place in a table of windows x longest window."""
        place = torch.arange(self.window_of_row.shape[0], device=self.offsets.device)
        inside = place - self.offsets[self.window_of_row]
        return self.window_of_row * max(self.lengths) + inside

    @property
    def slots(self) -> int:
        """Windows x longest window."""
        return len(self.lengths) * max(self.lengths)


def outer_products(query: Tensor, key: Tensor, value: Tensor, windows: SortedWindows) -> Tensor:
    """Outer product of every row, summed per window by index_add, gathered for every row."""
    query, key = query.relu(), key.relu()
    index, count = windows.window_of_row, len(windows.lengths)
    outer = key[..., None] * value[:, :, None]
    sums = outer.new_zeros((count, *outer.shape[1:])).index_add(0, index, outer)
    keys = key.new_zeros((count, *key.shape[1:])).index_add(0, index, key)
    total = (query * keys[index]).sum(-1, keepdim=True) + EPSILON
    return (query[:, :, None] @ sums[index])[:, :, 0] / total


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend inside one window, or many of one length: (..., n, H, D), heads as a batch."""
    query, key = query.relu().transpose(-2, -3), key.relu().transpose(-2, -3)
    sums = key.transpose(-1, -2) @ value.transpose(-2, -3)
    total = query @ key.sum(-2, keepdim=True).transpose(-1, -2) + EPSILON
    return ((query @ sums) / total).transpose(-2, -3)


def loop_over_slices(query: Tensor, key: Tensor, value: Tensor, windows: SortedWindows) -> Tensor:
    """One window after the other, cut out by slicing: autograd fills all rows for every slice."""
    parts, begin = [], 0
    for length in windows.lengths:
        rows = slice(begin, begin + length)
        parts.append(_attend(query[rows], key[rows], value[rows]))
        begin += length
    return torch.cat(parts)


def loop_over_splits(query: Tensor, key: Tensor, value: Tensor, windows: SortedWindows) -> Tensor:
    """One window after the other, cut out by one split, whose gradient is one concatenation."""
    cut = [torch.split(rows, windows.lengths) for rows in (query, key, value)]
    return torch.cat([_attend(*window) for window in zip(*cut, strict=True)])


def padded(query: Tensor, key: Tensor, value: Tensor, windows: SortedWindows) -> Tensor:
    """All windows padded to the longest, then batched products."""
    slot = windows.slot_of_row
    tables = [
        rows.new_zeros((windows.slots, *rows.shape[1:]))
        .index_copy(0, slot, rows)
        .view(len(windows.lengths), -1, *rows.shape[1:])
        for rows in (query, key, value)
    ]
    return _attend(*tables).reshape(windows.slots, *value.shape[1:])[slot]
