"""Runs benchmark rows and tells how they went."""

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from fnmatch import fnmatchcase

import torch

from perception3d.benchmark.ceilings import ceilings_by_threads, place_of
from perception3d.benchmark.cuda_calls import measure_cuda_calls
from perception3d.benchmark.machine import describe_device, describe_machine
from perception3d.benchmark.measure import ROUNDS, Timing, measure
from perception3d.benchmark.measure_cuda import CUDA_ROUNDS, capture, measure_cuda
from perception3d.benchmark.record import (
    Record,
    describe,
    describe_case,
    describe_times,
)
from perception3d.benchmark.registry import ROWS
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.workloads import MissingData, Workload, make_workload

QUIET_LOAD = 1.0
TINY_SHARE = 0.4
Tell = Callable[[str], None]


class Run:
    """One run over rows and workloads on one device.

    Args:
        device: "cpu", "cuda" or "cuda:N".
        rounds: samples per candidate; None takes 9 on the CPU and 30 on CUDA.
        tell: receives a line of text per measured peer.
        judged_only: only what is judged: peers of required ratios, one thread on the CPU.
    """

    def __init__(
        self, device: str, rounds: int | None, tell: Tell, *, judged_only: bool = False
    ) -> None:
        self.device = torch.device(device)
        self.cuda = self.device.type == "cuda"
        self.rounds = rounds or (CUDA_ROUNDS if self.cuda else ROUNDS)
        self.tell = tell
        self.judged_only = judged_only
        alone = self.cuda or judged_only
        self.threads = (1,) if alone else tuple(sorted({1, min(2, os.cpu_count() or 1)}))
        self.ceilings: dict[str, dict[str, float]] = {}
        self.records: list[Record] = []
        self.skipped: list[str] = []
        self.failed: list[str] = []

    def measure_ceilings(self) -> None:
        """Measure what the machine can do, which the floors need."""
        self.ceilings = ceilings_by_threads(self.device, self.threads)

    def measure_row(self, row: Row, workload: Workload) -> None:
        """Check a row, then time it; what is missing or fails is told, and the run goes on."""
        place = f"{row.name} {workload.name}"
        try:
            case = row.prepare(workload)
            if not case.max_error <= row.tolerance:
                self.tell(f"{place}: WRONG, error {case.max_error:.3g}, not timed")
                self.records.append({**describe_case(row, workload, case), "wrong": True})
                return
            self._time(row, workload, case)
        except MissingData as missing:
            self.skip(f"{place}: {missing}")
        except NotImplementedError as missing:  # torch's, for a device without our kernel
            self.skip(f"{place}: {_first_line(missing)}")
        except Exception as error:  # one broken row must not cost the others
            self.failed.append(f"{place}: {type(error).__name__}: {_first_line(error)}")
            self.tell(f"FAILED {self.failed[-1]}")

    def skip(self, reason: str) -> None:
        """Leave something out, visibly."""
        self.skipped.append(reason)
        self.tell(f"skipped {reason}")

    def _time(self, row: Row, workload: Workload, case: Case) -> None:
        candidates = {"ours": case.ours, **self._running_peers(row, workload, case)}
        common = {**describe_case(row, workload, case), **self._calls(row, workload, case)}
        for place, timings in self._timings(candidates):
            ceilings = self.ceilings[place_of(self.device, int(str(place["threads"])))]
            peers: list[str | None] = [name for name in timings if name != "ours"]
            for peer in peers or [None]:
                times = describe_times(row, workload, case, timings, peer, ceilings)
                self.records.append({**common, **place, **times})
                self.tell(describe(self.records[-1]))

    def _calls(self, row: Row, workload: Workload, case: Case) -> Record:
        """Return how often ours turns to the GPU; on the CPU, or without a profiler, nothing."""
        if not self.cuda:
            return {}
        try:
            return asdict(measure_cuda_calls(case.ours, self.device))
        except RuntimeError as error:
            self.skip(f"{row.name} {workload.name}: launches and waits: {_first_line(error)}")
            return {}

    def _running_peers(
        self, row: Row, workload: Workload, case: Case
    ) -> dict[str, Callable[[], object]]:
        """Return the peers whose first call succeeds: packages may not fit the device."""
        running = {}
        required = row.required_on(self.device.type)
        wanted = {n: run for n, run in case.peers.items() if not self.judged_only or n in required}
        for name, run in wanted.items():
            try:
                run()
            except Exception as error:  # whatever another package raises
                reason = f"{type(error).__name__}: {_first_line(error)}"
                self.skip(f"{row.name} {workload.name}: peer {name!r}: {reason}")
            else:
                running[name] = run
        return running

    def _timings(
        self, candidates: dict[str, Callable[[], object]]
    ) -> Iterable[tuple[Record, dict[str, Timing]]]:
        """Yield how was measured, and the timings: two ways on either kind of device."""
        if not self.cuda:
            for threads in self.threads:
                clock = "process CPU time" if threads == 1 else "wall time"
                yield (
                    {"threads": threads, "clock": clock},
                    measure(candidates, threads=threads, cpu_time=threads == 1, rounds=self.rounds),
                )
            return
        yield (
            {"threads": 1, "clock": "CUDA events"},
            measure_cuda(candidates, device=self.device, rounds=self.rounds),
        )
        graphs = {name: capture(run, self.device) for name, run in candidates.items()}
        recorded = {name: replay for name, replay in graphs.items() if replay is not None}
        if "ours" in recorded:
            yield (
                {"threads": 1, "clock": "CUDA graph replay"},
                measure_cuda(recorded, device=self.device, rounds=self.rounds),
            )


def run_benchmark(
    patterns: Iterable[str],
    workloads: Iterable[str],
    rounds: int | None,
    tell: Tell,
    device: str = "cpu",
    *,
    judged_only: bool = False,
) -> Record:
    """Measure the selected rows.

    Args:
        patterns: globs over row names, such as "voxelize/*".
        workloads: names of workloads.
        rounds: samples per candidate; None takes 9 on the CPU and 30 on CUDA.
        tell: receives a line of text per measured peer.
        device: "cpu", "cuda" or "cuda:N".
        judged_only: only what is judged: rows with required ratios against those peers, on the
            CPU with one thread.

    Returns:
        {"machine", "ceilings", "rows", "skipped", "failed"}: ready for JSON.
    """
    wanted = list(patterns)
    run = Run(device, rounds, tell, judged_only=judged_only)
    machine = {**describe_machine(), "device": describe_device(run.device)}
    if not run.cuda and os.getloadavg()[0] > QUIET_LOAD:
        tell(f"load {os.getloadavg()[0]:.1f} > {QUIET_LOAD}: trust the 1-thread CPU times only")
    run.measure_ceilings()
    for name in workloads:
        try:
            workload = make_workload(name).to(run.device)
        except MissingData as missing:
            run.skip(f"{name}: {missing}")
            continue
        for row in ROWS:
            chosen = name in row.workloads and any(fnmatchcase(row.name, p) for p in wanted)
            if chosen and (row.required_on(run.device.type) or not judged_only):
                run.measure_row(row, workload)
    return {
        "machine": machine,
        "ceilings": run.ceilings,
        "rows": run.records,
        "skipped": run.skipped,
        "failed": run.failed,
    }


def failures(report: Record, share: float, *, judged_only: bool = False) -> list[str]:
    """List rows that failed, were wrong, or fell short of `share` of a required ratio.

    Args:
        report: of `run_benchmark`.
        share: part of the required ratios that must be reached: on the CPU by process CPU time
            with one thread, on CUDA by both figures.  On tiny clouds two fifths of that are
            enough: they show what a call costs, and the ratios are meant for real ones.
        judged_only: look at the ratios of each row's `judged_on` workload only.
    """
    rows, failed = report["rows"], report["failed"]
    assert isinstance(rows, list)
    assert isinstance(failed, list)
    found = list(failed)
    for record in rows:
        if record.get("wrong"):
            found.append(f"{record['name']} {record['workload']}: wrong result")
        elif record["required"] is not None and (record["judged"] or not judged_only):
            least = share * record["required"]
            if record["workload"] == "tiny" and not record["judged"]:
                least *= TINY_SHARE
            if record["threads"] == 1 and record["ratio"] < least:
                found.append(f"{describe(record)}: below {least:.2f}")
    return found


def _first_line(error: BaseException) -> str:
    """Return the first line of a message; torch appends pages."""
    return (str(error).splitlines() or ["no message"])[0]
