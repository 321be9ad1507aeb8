"""The table that tools/check_parity.py prints."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from perception3d.parity.run import CaseOutcome

_SHOWN_FAILURES = 8
_FILE_WIDTH = 150  # columns of a report that goes to a file or a pipe


def print_report(outcomes: Sequence[CaseOutcome], console: Console | None = None) -> None:
    """Print the worst error of every case relative to its tolerance, then what failed and why."""
    console = console or Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    table = Table(title="worst error / allowed error per case", title_justify="left")
    for column in ("case", "kind", "arrays", "worst", "of array", "s", ""):
        table.add_column(column, overflow="fold", no_wrap=column in ("case", "kind", ""))
    for outcome in outcomes:
        worst = outcome.worst
        table.add_row(
            outcome.name,
            outcome.kind,
            str(len(outcome.comparisons)),
            "-" if worst is None else format_ratio(worst.ratio),
            "-" if worst is None else worst.key,
            f"{outcome.seconds:.2f}",
            Text("ok", "green") if outcome.passed else Text("FAILED", "bold red"),
        )
    console.print(table)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failed:
        _print_failures(outcome, console)
    console.print(f"{len(outcomes) - len(failed)} of {len(outcomes)} cases passed", highlight=False)


def _print_failures(outcome: CaseOutcome, console: Console) -> None:
    console.print(Text(f"{outcome.name} failed:", "bold red"))
    for line in outcome.failures[:_SHOWN_FAILURES]:
        console.print(Text(f"  {line}"))
    more = len(outcome.failures) - _SHOWN_FAILURES
    if more > 0:
        console.print(f"  and {more} more", highlight=False)


def format_ratio(ratio: float) -> str:
    """Write a ratio of errors: "0", "0.083", "inf"."""
    return "inf" if math.isinf(ratio) else f"{ratio:.3g}"
