"""Plain torch twin of `perception3d.ops.segment_reduce`."""

import torch
from torch import Tensor


def segment_reduce(values: Tensor, order: Tensor, offsets: Tensor, reduce: str = "sum") -> Tensor:
    """Reduce the rows of every segment; see `perception3d.ops.segment_reduce`."""
    counts = offsets.diff()
    segment = torch.arange(counts.shape[0], device=values.device).repeat_interleave(counts)
    rows = values[order]
    if reduce == "max":
        first = _first_maximum(rows.detach(), segment, counts.shape[0])
        padded = torch.cat([rows, rows.new_zeros((1, rows.shape[1]))])
        return padded.gather(0, first)
    total = values.new_zeros((counts.shape[0], values.shape[1])).index_add(0, segment, rows)
    return total / counts.clamp(min=1)[:, None].to(total.dtype) if reduce == "mean" else total


def _first_maximum(rows: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    """Return (N, C) the first maximal row of each segment, K for empty ones."""
    index = segment[:, None].expand_as(rows)
    best = rows.new_full((num_segments, rows.shape[1]), -torch.inf)
    best = best.scatter_reduce(0, index, rows, "amax")
    reached = (rows == best[segment]) | (rows.isnan() & best[segment].isnan())
    place = torch.arange(rows.shape[0], device=rows.device)[:, None].expand_as(rows)
    place = torch.where(reached, place, rows.shape[0])
    nowhere = torch.full(best.shape, rows.shape[0], dtype=torch.int64, device=rows.device)
    return nowhere.scatter_reduce(0, index, place, "amin")
