"""Runs benchmark rows and tells how they went."""

import json
import os
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from perception3d.benchmark.machine import copy_bandwidth, describe_machine
from perception3d.benchmark.measure import ROUNDS, Timing, measure, paired_ratio
from perception3d.benchmark.registry import ROWS
from perception3d.benchmark.row import Case, Row
from perception3d.benchmark.workloads import MissingData, Workload, make_workload

Record = dict[str, object]
QUIET_LOAD = 1.0
NOISY_SPREAD = 0.2


def run_benchmark(
    patterns: Iterable[str], workloads: Iterable[str], rounds: int, tell: Callable[[str], None]
) -> Record:
    """Measure the selected rows.

    Args:
        patterns: globs over row names, such as "voxelize/*".
        workloads: names of workloads.
        rounds: samples per candidate.
        tell: receives a line of text per measured peer.

    Returns:
        {"machine", "ceilings", "rows", "skipped"}: ready for JSON.
    """
    machine = describe_machine()
    if os.getloadavg()[0] > QUIET_LOAD:
        tell(f"load {os.getloadavg()[0]:.1f} > {QUIET_LOAD}: trust the 1-thread CPU times only")
    threads = min(2, os.cpu_count() or 1)
    ceilings = {1: copy_bandwidth(1), threads: copy_bandwidth(threads)}
    records: list[Record] = []
    skipped: list[str] = []
    for name in workloads:
        try:
            workload = make_workload(name)
        except MissingData as missing:
            skipped.append(f"{name}: {missing}")
            tell(f"skipped {name}: {missing}")
            continue
        for row in ROWS:
            if name in row.workloads and any(fnmatchcase(row.name, p) for p in patterns):
                records += _measure_row(row, workload, ceilings, rounds, tell)
    return {
        "machine": machine,
        "ceilings": {f"copy_bytes_per_s_{t}_threads": rate for t, rate in ceilings.items()},
        "rows": records,
        "skipped": skipped,
    }


def _measure_row(
    row: Row,
    workload: Workload,
    ceilings: dict[int, float],
    rounds: int,
    tell: Callable[[str], None],
) -> list[Record]:
    case = row.prepare(workload)
    if not case.max_error <= row.tolerance:
        tell(f"{row.name} {workload.name}: WRONG, error {case.max_error:.3g}, not timed")
        return [_record(row, workload, case, {"wrong": True})]
    records = []
    candidates = {"ours": case.ours, **case.peers}
    for threads, rate in ceilings.items():
        timings = measure(candidates, threads=threads, cpu_time=threads == 1, rounds=rounds)
        floor_ms = 1000.0 * case.floor_bytes / rate
        for peer in case.peers:
            times = _times(threads, timings, peer, floor_ms)
            record = _record(row, workload, case, times)
            records.append(record)
            tell(describe(record))
    return records


def _times(threads: int, timings: dict[str, Timing], peer: str, floor_ms: float) -> Record:
    ours, other = timings["ours"], timings[peer]
    ratio, lowest, highest = paired_ratio(ours, other)
    return {
        "threads": threads,
        "clock": "process CPU time" if threads == 1 else "wall time",
        "ours_ms": ours.median,
        "peer_name": peer,
        "peer_ms": other.median,
        "ratio": ratio,
        "ratio_min": lowest,
        "ratio_max": highest,
        "floor_ms": floor_ms,
        "floor_kind": "memory copy",
        "ours_over_floor": ours.median / floor_ms,
        "n": len(ours.rounds),
        "spread": ours.spread,
        "noisy": max(ours.spread, other.spread) > NOISY_SPREAD,
    }


def _record(row: Row, workload: Workload, case: Case, times: Record) -> Record:
    return {
        "op": row.op,
        "setting": row.setting,
        "workload": workload.name,
        "synthetic": workload.synthetic,
        "dtype": "float32",
        "device": "cpu",
        "direction": row.direction,
        "max_err": case.max_error,
        **times,
    }


def describe(record: Record) -> str:
    """Return one line of text for a record."""
    name = f"{record['op']}/{record['setting']}"
    if record["direction"] != "forward":
        name += f"/{record['direction']}"
    return (
        f"{name:40s} {record['workload']:5s} T{record['threads']} "
        f"ours {record['ours_ms']:8.3f} ms  {record['peer_name']:30s} {record['peer_ms']:9.3f} ms  "
        f"x{record['ratio']:6.2f} ({record['ratio_min']:.2f}..{record['ratio_max']:.2f})"
        f"{'  noisy' if record['noisy'] else ''}"
    )


def failures(report: Record, share: float) -> list[str]:
    """List rows that were wrong or fell short of `share` of their required 1-thread ratio."""
    required = {row.name: row.required for row in ROWS if row.direction == "forward"}
    found = []
    rows = report["rows"]
    assert isinstance(rows, list)
    for record in rows:
        if record.get("wrong"):
            found.append(f"{record['op']}/{record['setting']} {record['workload']}: wrong result")
            continue
        wanted = required.get(f"{record['op']}/{record['setting']}", {}).get(record["peer_name"])
        if wanted and record["threads"] == 1 and record["ratio"] < share * wanted:
            found.append(f"{describe(record)}: below {share * wanted:.2f}")
    return found


def write_report(report: Record, path: Path) -> None:
    """Write the report as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(report, indent=1) + "\n")
    draft.replace(path)


__all__ = ["ROUNDS", "failures", "run_benchmark", "write_report"]
