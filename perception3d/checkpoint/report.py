"""The table that says what became of every tensor of an official checkpoint."""

from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from perception3d.checkpoint.load import LoadReport

_FATES = ("matched", "reshaped", "ignored", "unexpected", "missing")
_LISTED = 20
_FILE_WIDTH = 150  # columns of a report that goes to a file or a pipe


def print_load_report(report: LoadReport, console: Console | None = None) -> None:
    """Print counts per part of the detector, then every name that found no partner."""
    console = console or Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    counts = {
        "matched": _parts(name for name, _ in report.matched),
        "reshaped": _parts(name for name, _, _ in report.reshaped),
        "ignored": _parts(report.ignored),
        "unexpected": _parts(report.unexpected),
        "missing": _parts(report.missing),
    }
    table = Table(title="tensors per part; missing ones under our names", title_justify="left")
    table.add_column("part")
    for fate in _FATES:
        table.add_column(fate, justify="right")
    for part in sorted({part for parts in counts.values() for part in parts}):
        table.add_row(part, *(str(counts[fate][part] or "-") for fate in _FATES))
    table.add_section()
    table.add_row("all", *(str(counts[fate].total() or "-") for fate in _FATES))
    console.print(table)
    for fate, names in (("missing", report.missing), ("unexpected", report.unexpected)):
        for name in names[:_LISTED]:
            console.print(f"{fate}: {name}", highlight=False, markup=False)
        if len(names) > _LISTED:
            console.print(f"{fate}: and {len(names) - _LISTED} more", highlight=False)


def _parts(names: Iterable[str]) -> Counter[str]:
    return Counter(name.split(".", 1)[0] for name in names)
