"""The table that tools/check_parity.py prints."""

import math
import sys
from collections.abc import Sequence

from perception3d.parity.run import CaseOutcome
from perception3d.terminal import print_table

_SHOWN_FAILURES = 8


def print_report(outcomes: Sequence[CaseOutcome]) -> None:
    """Print the worst error of every case relative to its tolerance, then what failed and why."""
    columns = ("case", "kind", "arrays", "worst", "of array", "s", "")
    rows = [
        (
            outcome.name,
            outcome.kind,
            str(len(outcome.comparisons)),
            "-" if outcome.worst is None else format_ratio(outcome.worst.ratio),
            "-" if outcome.worst is None else outcome.worst.key,
            f"{outcome.seconds:.2f}",
            "ok" if outcome.passed else "FAILED",
        )
        for outcome in outcomes
    ]
    print_table("worst error / allowed error per case", columns, rows, fold=["of array"])
    failed = [outcome for outcome in outcomes if not outcome.passed]
    lines = [line for outcome in failed for line in _failure_lines(outcome)]
    lines.append(f"{len(outcomes) - len(failed)} of {len(outcomes)} cases passed")
    sys.stdout.write("\n".join(lines) + "\n")


def _failure_lines(outcome: CaseOutcome) -> list[str]:
    lines = [f"{outcome.name} failed:"]
    lines += [f"  {line}" for line in outcome.failures[:_SHOWN_FAILURES]]
    more = len(outcome.failures) - _SHOWN_FAILURES
    return lines + ([f"  and {more} more"] if more > 0 else [])


def format_ratio(ratio: float) -> str:
    """Write a ratio of errors: "0", "0.083", "inf"."""
    return "inf" if math.isinf(ratio) else f"{ratio:.3g}"
