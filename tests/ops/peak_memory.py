"""How far a call raises the memory of this process."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_FORGET_PEAK = "5"  # proc(5)


def run_for_peak(run: Callable[[], Result]) -> tuple[Result, int]:
    """Return what a call returns, and by how many bytes it raised the resident memory at most.

    It has run once before, so that threads, caches and libraries are there.  Blocks of more than
    32 MB are new from the system every time, so none of them stays unseen.
    """
    run()
    Path("/proc/self/clear_refs").write_text(_FORGET_PEAK)
    before = _peak()
    result = run()
    return result, _peak() - before


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
