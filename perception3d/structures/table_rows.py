"""Rows that repeat those of a table."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TableRows:
    """N rows, each one of the M rows of a table: whatever is linear in them needs M rows of work.

    Attributes:
        table: (M, C).
        index: (N,) int64 rows of the table.
    """

    table: Tensor
    index: Tensor

    def expand(self) -> Tensor:
        """Return the rows themselves: (N, C)."""
        return self.table[self.index]
