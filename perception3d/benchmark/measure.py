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
LONG_CALL = 2.0  # s; one such call warms up as well as several
LONGEST_SAMPLING = 100.0  # s per candidate; slower ones get fewer rounds, but FEWEST_ROUNDS
FEWEST_ROUNDS = 3

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
    """Time candidates in turn, A B C A B C, after two warm-ups each; one for calls of seconds.

    Args:
        candidates: functions without arguments, by name.
        threads: torch's thread count while measuring.
        cpu_time: process CPU time instead of wall time: robust while other jobs run.
        rounds: samples per candidate; fewer, from the first round on, for those that would need
            minutes.

    Returns:
        Timings by name.
    """
    clock = time.process_time if cpu_time else time.perf_counter
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        fastest = {name: _warm_up(run) for name, run in candidates.items()}
        repeats = {name: math.ceil(SHORTEST_SAMPLE / call) for name, call in fastest.items()}
        limits = {name: _rounds(call, rounds) for name, call in fastest.items()}
        samples: dict[str, list[float]] = {name: [] for name in candidates}
        for number in range(rounds):
            for name, run in candidates.items():
                if number >= limits[name]:
                    continue
                start = clock()
                for _ in range(repeats[name]):
                    run()
                samples[name].append(1000.0 * (clock() - start) / repeats[name])
    finally:
        torch.set_num_threads(before)
    return {name: Timing(tuple(times)) for name, times in samples.items()}


def _warm_up(run: Candidate) -> float:
    """Return the wall time of the fastest of the first calls, s."""
    fastest = math.inf
    for _ in range(WARM_UPS + 1):
        start = time.perf_counter()
        run()
        fastest = min(fastest, time.perf_counter() - start)
        if fastest >= LONG_CALL:
            break
    return fastest


def _rounds(call: float, rounds: int) -> int:
    """Return how many samples a candidate whose call takes that long, s, is worth."""
    return min(rounds, max(FEWEST_ROUNDS, int(LONGEST_SAMPLING / call)))


def paired_ratio(ours: Timing, peer: Timing) -> tuple[float, float, float]:
    """Return median, smallest and largest of peer / ours over the rounds that both ran in."""
    ratios = [b / a for a, b in zip(ours.rounds, peer.rounds, strict=False)]
    return statistics.median(ratios), min(ratios), max(ratios)
