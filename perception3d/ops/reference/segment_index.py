"""Plain torch twin of `perception3d.ops.segment_index`."""

import torch
from torch import Tensor


def segment_index(segment_of_row: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """Sort rows by segment; see `perception3d.ops.segment_index`."""
    rows = torch.nonzero(segment_of_row >= 0).squeeze(1)
    segments = segment_of_row[rows]
    order = rows[torch.argsort(segments, stable=True)]
    counts = torch.bincount(segments, minlength=num_segments)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return order, offsets
