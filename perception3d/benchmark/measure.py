"""The measuring protocol: candidates alternate inside one process, ratios are paired by round."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

WARM_UPS = 2
ROUNDS = 9
SHORTEST_SAMPLE = 0.004  # s; faster calls are repeated until a sample takes this long

Candidate = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Times of one candidate, ms per call, one entry per round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median over rounds, ms."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """(largest - smallest) / median."""
        return (max(self.rounds) - min(self.rounds)) / self.median


def measure(
    candidates: dict[str, Candidate], *, threads: int, cpu_time: bool, rounds: int = ROUNDS
) -> dict[str, Timing]:
    """Time candidates in turn, A B C A B C, after two warm-ups each.

    Args:
        candidates: functions without arguments, by name.
        threads: torch's thread count while measuring.
        cpu_time: process CPU time instead of wall time: robust while other jobs run.
        rounds: samples per candidate.

    Returns:
        Timings by name.
    """
    clock = time.process_time if cpu_time else time.perf_counter
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        repeats = {name: _repeats(run) for name, run in candidates.items()}
        samples: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(rounds):
            for name, run in candidates.items():
                start = clock()
                for _ in range(repeats[name]):
                    run()
                samples[name].append(1000.0 * (clock() - start) / repeats[name])
    finally:
        torch.set_num_threads(before)
    return {name: Timing(tuple(times)) for name, times in samples.items()}


def _repeats(run: Candidate) -> int:
    """Warm up, and return how many calls make a sample long enough."""
    fastest = math.inf
    for _ in range(WARM_UPS + 1):
        start = time.perf_counter()
        run()
        fastest = min(fastest, time.perf_counter() - start)
    return max(1, math.ceil(SHORTEST_SAMPLE / fastest))


def paired_ratio(ours: Timing, peer: Timing) -> tuple[float, float, float]:
    """Return median, smallest and largest of peer / ours over the rounds."""
    ratios = [b / a for a, b in zip(ours.rounds, peer.rounds, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)
