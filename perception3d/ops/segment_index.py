"""Sorts rows by the segment they belong to."""

import torch
from torch import Tensor

from perception3d.checks import check_tensor
from perception3d.ops.library import fake_kernel, load_library

native = load_library()


def segment_index(segment_of_row: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """Sort rows by segment, stably, in O(rows + segments).

    Args:
        segment_of_row: (R,) int64 segment of each row; rows with an id below 0 are left out.
        num_segments: number of segments S >= 0; ids lie below it.

    Returns:
        order: (K,) int64, the K rows that were not left out, sorted by segment, rows of one
            segment in ascending order.
        offsets: (S + 1,) int64, segment s holds the rows order[offsets[s]:offsets[s + 1]].

    Raises:
        TypeError, ValueError: shape, dtype or a negative num_segments.
        RuntimeError: an id is not below num_segments (CPU).
    """
    check_tensor("segment_index", "segment_of_row", segment_of_row, ("R",), (torch.int64,))
    if num_segments < 0:
        raise ValueError(f"segment_index: num_segments must be >= 0, got {num_segments}")
    order, offsets = native.segment_index(segment_of_row.contiguous(), num_segments)
    return order, offsets


@fake_kernel("segment_index")
def _fake(segment_of_row: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    kept = torch.library.get_ctx().new_dynamic_size()
    return segment_of_row.new_empty(kept), segment_of_row.new_empty(num_segments + 1)
