"""Sequences laid end to end, for the plain-torch operators."""

from itertools import pairwise

import torch
from torch import Tensor


def walks(length: int, offsets: Tensor, order: Tensor | None, reverse: bool) -> list[Tensor]:
    """Return the rows of every sequence, int64, in the order in which they are visited."""
    rows = torch.arange(length, device=offsets.device) if order is None else order
    bounds = offsets.tolist()
    found = [rows[begin:end] for begin, end in pairwise(bounds)]
    return [walk.flip(0) for walk in found] if reverse else found


def rows_in_place(visited: list[Tensor], walks_of_sequences: list[Tensor], like: Tensor) -> Tensor:
    """Put results, listed sequence by sequence as visited, back into the rows they belong to."""
    if not visited:
        return torch.zeros_like(like)
    return torch.stack(visited)[torch.cat(walks_of_sequences).argsort()]
