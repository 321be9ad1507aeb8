"""Runs cases and judges them."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from perception3d.parity.case import Case
from perception3d.parity.compare import Comparison, compare_case
from perception3d.parity.kinds import find_kind


@dataclass(frozen=True)
class CaseOutcome:
    """Verdict on one case.

    Attributes:
        name, kind: of the case.
        comparisons: one per recorded array.
        error: why the case could not be replayed, empty if it was.
        seconds: time of replay and comparison.
    """

    name: str
    kind: str
    comparisons: tuple[Comparison, ...]
    error: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Replayed, and every array within its tolerance."""
        return not self.error and all(part.passed for part in self.comparisons)

    @property
    def worst(self) -> Comparison | None:
        """The comparison with the largest error relative to its tolerance, if there is any."""
        return max(self.comparisons, key=lambda part: part.ratio, default=None)

    @property
    def failures(self) -> list[str]:
        """One line per thing that is wrong."""
        lines = [self.error] if self.error else []
        return lines + [f"{part.key}: {part.note}" for part in self.comparisons if not part.passed]


def run_case(case: Case, device: torch.device, *, debug: bool = False) -> CaseOutcome:
    """Replay a case and compare it; whatever goes wrong is part of the outcome.

    Args:
        case: the case.
        device: where the replay runs.
        debug: let the exception of a failing replay through.
    """
    start = time.perf_counter()
    comparisons: tuple[Comparison, ...] = ()
    error = ""
    try:
        with _full_precision():
            comparisons = _replay(case, device)
    except Exception as problem:  # a case that cannot be replayed is a failed case, not a crash
        if debug:
            raise
        error = f"{type(problem).__name__}: {problem}"
    return CaseOutcome(case.name, case.kind, comparisons, error, time.perf_counter() - start)


def _replay(case: Case, device: torch.device) -> tuple[Comparison, ...]:
    kind = find_kind(case)
    if kind.replay is None:
        return (Comparison(case.path.name, 0.0 if case.arrays else math.inf, "is empty"),)
    expected = None if kind.expected is None else kind.expected(case)
    comparisons = compare_case(case, kind.replay(case, device), expected)
    if not comparisons:
        return (Comparison(case.path.name, math.inf, "records nothing that could be compared"),)
    return tuple(comparisons)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Switch TF32 off: the tolerances are meant for full float32."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
