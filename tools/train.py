#!/usr/bin/env python3
"""Train a model: `tools/train.py CONFIG`, or `torchrun --nproc_per_node=N tools/train.py CONFIG`.

Paths on the command line are relative to the current folder; data_root in a config likewise.
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
    cli.add_runtime(options)
    options.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="auto|FILE",
        help="continue at the last checkpoint of the work folder, or at a file",
    )
    options.add_argument("--load-from", metavar="FILE", help="start from these weights")
    options.add_argument(
        "--amp",
        nargs="?",
        const="fp16",
        choices=("fp16", "bf16"),
        help="mixed precision; fp16 needs CUDA",
    )
    options.add_argument(
        "--auto-scale-lr", action="store_true", help="scale the rate with the global batch size"
    )
    options.add_argument(
        "--dry-run", action="store_true", help="build everything, compute one loss, store nothing"
    )
    return options


def main(arguments: argparse.Namespace) -> None:
    """Train."""
    from perception3d.engine.options import RunOptions
    from perception3d.engine.run import train

    options = cli.options_of(RunOptions, arguments)
    train(arguments.config, arguments.cfg_options, options, arguments.dry_run)


if __name__ == "__main__":
    cli.run(main, parser())
