"""Tables on the terminal: drawn by rich, or as plain aligned columns where rich is missing."""

import importlib.util
import sys
from collections.abc import Sequence

_FILE_WIDTH = 150  # columns of a table that goes to a file or a pipe
_COLORS = {"ok": "green", "FAILED": "bold red"}


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, fold: Sequence[str] = ()
) -> None:
    """Print a table.

    Args:
        title: line above it.
        columns: headings.
        rows: cells; those that begin like a number are aligned to the right.
        fold: headings of the columns that may be folded where the terminal is narrow.
    """
    if importlib.util.find_spec("rich") is None:
        _print_plain(title, columns, rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(
            column,
            justify="right" if _is_numeric(rows, place) else "left",
            overflow="fold",
            no_wrap=column not in fold,
        )
    for row in rows:
        table.add_row(*(Text(cell, _COLORS.get(cell, "")) for cell in row))
    console.print(table)


def _print_plain(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [columns, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    numeric = [_is_numeric(rows, place) for place in range(len(columns))]
    sys.stdout.write(f"{title}\n")
    for line in lines:
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def _is_numeric(rows: Sequence[Sequence[str]], place: int) -> bool:
    """Say whether every cell of a column begins like a number or is a dash."""
    return all(row[place][:1].isdigit() or row[place] in ("-", "inf") for row in rows)
