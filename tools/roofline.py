#!/usr/bin/env python3
"""Measure what a machine can do at best: memory, arithmetic, exponentials, gathered rows.

The benchmark measures the same before its rows and stores it in its report.
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
    options.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N; default cpu")
    options.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="of the CPU, default 1 2"
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="write the report here")
    return options


def main(arguments: argparse.Namespace) -> None:
    """Measure, print, store."""
    import torch

    from perception3d.benchmark.ceilings import ceilings_by_threads
    from perception3d.benchmark.ceilings_text import print_ceilings
    from perception3d.benchmark.machine import check_device, describe_device, describe_machine
    from perception3d.benchmark.record import write_report
    from perception3d.errors import UserError

    check_device(arguments.device)
    if min(arguments.threads) < 1:
        raise UserError(f"--threads must be at least 1, got {min(arguments.threads)}")
    device = torch.device(arguments.device)
    machine = {**describe_machine(), "device": describe_device(device)}
    ceilings = ceilings_by_threads(device, arguments.threads)
    print_ceilings(str(machine["device"]), ceilings)
    if arguments.json is not None:
        write_report({"machine": machine, "ceilings": ceilings}, arguments.json)


if __name__ == "__main__":
    cli.run(main, parser(), measures=True)
