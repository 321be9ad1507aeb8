"""Replays recorded cases of the reference implementations through this stack."""

from perception3d.parity.case import Case, CaseError, Rule, case_folders, read_cases
from perception3d.parity.compare import Comparison, compare_case
from perception3d.parity.run import CaseOutcome, run_case

__all__ = [
    "Case",
    "CaseError",
    "CaseOutcome",
    "Comparison",
    "Rule",
    "case_folders",
    "compare_case",
    "read_cases",
    "run_case",
]
