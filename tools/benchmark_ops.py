#!/usr/bin/env python3
"""Measure operators against their peers: alternating in one process, ratios paired by round.

CPU: two figures a row, process CPU time with one thread (decides) and wall time with two.
CUDA: events around single calls on a cold cache, and the replay of a CUDA graph.
Ceilings of the machine are measured first; each row tells its floor. A wrong row gets no time.
"""

import argparse
import fnmatch
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout need not be installed

from perception3d.engine import cli


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("rows", nargs="*", default=["*"], help="globs over row names, OP/SETTING")
    options.add_argument(
        "--workload",
        "--workloads",
        dest="workloads",
        nargs="+",
        metavar="NAME",
        help="tiny, tail, f1, f10, w180; default: all",
    )
    options.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N; default cpu")
    options.add_argument("--rounds", type=int, metavar="N", help="samples; default 9, CUDA 30")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the report here")
    options.add_argument(
        "--check",
        action="store_true",
        help="a guard: measure only what is required, with one thread, and fail below half of it",
    )
    options.add_argument(
        "--must", action="store_true", help="fail below the required ratios on f10 (or f1)"
    )
    return options


def main(arguments: argparse.Namespace) -> None:
    """Measure, store, judge."""
    from perception3d.benchmark.machine import check_device
    from perception3d.benchmark.record import write_report
    from perception3d.benchmark.registry import ROWS
    from perception3d.benchmark.run import failures, run_benchmark
    from perception3d.benchmark.workloads import WORKLOADS
    from perception3d.errors import UserError, unknown

    workloads = arguments.workloads or list(WORKLOADS)
    for name in workloads:
        if name not in WORKLOADS:
            raise UserError(f"--workload: {unknown(name, WORKLOADS, 'workload')}")
    names = [row.name for row in ROWS]
    for pattern in arguments.rows:
        if not fnmatch.filter(names, pattern):
            raise UserError(f"rows: {unknown(pattern, names, 'row')}")
    rounds, device = arguments.rounds, arguments.device
    if rounds is not None and rounds < 1:
        raise UserError(f"--rounds must be at least 1, got {rounds}")
    check_device(device)
    report = run_benchmark(
        arguments.rows,
        workloads,
        rounds,
        lambda line: print(line, flush=True),
        device,
        judged_only=arguments.check,
    )
    if arguments.json is not None:
        write_report(report, arguments.json)
    problems = failures(report, 0.5 if arguments.check else 0.0)
    if arguments.must:
        problems += failures(report, 1.0, judged_only=True)
    problems = list(dict.fromkeys(problems))
    for problem in problems[1:]:
        sys.stderr.write(f"error: {problem}\n")
    if problems:
        raise UserError(problems[0])


if __name__ == "__main__":
    cli.run(main, parser(), measures=True)
