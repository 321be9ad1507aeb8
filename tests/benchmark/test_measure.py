"""The measuring protocol."""

import time
from types import SimpleNamespace

import torch

from perception3d.benchmark import measure as protocol
from perception3d.benchmark.measure import (
    FEWEST_ROUNDS,
    SHORTEST_SAMPLE,
    Timing,
    measure,
    paired_ratio,
)


def test_candidates_alternate_after_two_warm_ups():
    calls = []

    def candidate(name):
        def run():
            calls.append(name)
            time.sleep(SHORTEST_SAMPLE)  # long enough to be called once per sample

        return run

    timings = measure(
        {"a": candidate("a"), "b": candidate("b")}, threads=1, cpu_time=False, rounds=3
    )
    assert calls[:6] == ["a"] * 3 + ["b"] * 3  # two warm-ups and the one that sets the repeats
    assert calls[6:] == ["a", "b"] * 3
    assert len(timings["a"].rounds) == 3
    assert 1000 * SHORTEST_SAMPLE <= timings["a"].median < 1000  # ms; a busy machine sleeps longer


def test_short_calls_are_repeated():
    count = 0

    def run():
        nonlocal count
        count += 1

    timing = measure({"a": run}, threads=1, cpu_time=False, rounds=2)["a"]
    assert count > 100
    assert timing.median < 1.0


def test_sleeping_costs_no_cpu_time():
    timing = measure({"a": lambda: time.sleep(0.02)}, threads=1, cpu_time=True, rounds=2)["a"]
    assert timing.median < 10.0


def test_thread_count_is_set_and_restored():
    before, seen = torch.get_num_threads(), []
    measure({"a": lambda: seen.append(torch.get_num_threads())}, threads=3, cpu_time=True, rounds=1)
    assert set(seen) == {3}
    assert torch.get_num_threads() == before


def test_ratio_is_paired_by_round():
    # Unpaired medians would give 2 / 2 = 1: the machine was slow in different rounds.
    ours, peer = Timing((1.0, 2.0, 9.0)), Timing((2.0, 4.0, 1.0))
    assert paired_ratio(ours, peer) == (2.0, 1 / 9, 2.0)
    assert ours.spread == 4.0


def test_slow_candidates_get_fewer_rounds(monkeypatch):
    now, calls = 0.0, []
    monkeypatch.setattr(protocol, "time", SimpleNamespace(perf_counter=lambda: now))

    def candidate(name, seconds):
        def run():
            nonlocal now
            now += seconds
            calls.append(name)

        return run

    slow = candidate("slow", protocol.LONGEST_SAMPLING / 2)
    timings = measure(
        {"quick": candidate("quick", 1.0), "slow": slow}, threads=1, cpu_time=False, rounds=5
    )
    assert calls[:4] == ["quick"] * 3 + ["slow"]  # a long call warms up alone
    assert calls[4:] == ["quick", "slow"] * FEWEST_ROUNDS + ["quick"] * 2
    assert timings["quick"].rounds == (1000.0,) * 5
    assert len(timings["slow"].rounds) == FEWEST_ROUNDS
    assert paired_ratio(timings["quick"], timings["slow"])[0] == protocol.LONGEST_SAMPLING / 2
