#!/usr/bin/env python
"""Measure operators against their peers: alternating in one process, ratios paired by round.

Two figures a row: process CPU time with one thread (decides) and wall time with two.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perception3d.benchmark.run import ROUNDS, failures, run_benchmark, write_report
from perception3d.benchmark.workloads import WORKLOADS


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", default=["*"], help="globs over row names, OP/SETTING")
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=WORKLOADS)
    parser.add_argument("--device", default="cpu", choices=("cpu",))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument(
        "--check", action="store_true", help="fail below half of the required ratios"
    )
    arguments = parser.parse_args()
    report = run_benchmark(
        arguments.rows,
        arguments.workloads,
        arguments.rounds,
        lambda line: print(line, flush=True),
    )
    if arguments.json:
        write_report(report, arguments.json)
    problems = failures(report, 0.5) if arguments.check else failures(report, 0.0)
    for problem in problems:
        print(f"FAILED {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
