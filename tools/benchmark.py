#!/usr/bin/env python3
"""Latency of a model, stage by stage: from points on the device to boxes.

On the CPU each stage has two figures: process CPU time with one thread, which other jobs hardly
disturb, and wall time with --threads. On CUDA: events around the stages.
"""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout need not be installed

from perception3d.engine import cli


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_config(options)
    options.add_argument("--checkpoint", metavar="FILE", help="weights; default: as initialised")
    options.add_argument("--device", help="cpu, cuda or cuda:N")
    cli.add_workload(options)
    options.add_argument("--rounds", type=int, default=9, help="samples, default 9 (CUDA: use 30)")
    options.add_argument("--threads", type=int, default=2, help="for wall time, default 2")
    options.add_argument("--train", action="store_true", help="forward, loss and backward")
    options.add_argument(
        "--shares", metavar="PART", help="operators that the time goes to: all, backbone, neck, ..."
    )
    options.add_argument("--json", metavar="FILE", help="write the report here")
    return options


def main(arguments: argparse.Namespace) -> None:
    """Measure, print, store."""
    from perception3d.engine.latency import LatencyOptions, measure_model, store

    options = cli.options_of(LatencyOptions, arguments)
    report = measure_model(arguments.config, arguments.cfg_options, options, tell=print)
    if arguments.json is not None:
        store(report, arguments.json)


if __name__ == "__main__":
    cli.run(main, parser(), measures=True)
