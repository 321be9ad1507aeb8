#!/usr/bin/env python3
"""Prepare data sets: `tools/create_data.py nuscenes --root-path DIR --version v1.0-mini`.

Each data set brings its own command: a module with `register(subparsers)` that sets `command`, a
function of (arguments, progress) which returns the lines to print.
"""

import argparse
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout need not be installed

from perception3d.engine import cli

DATASETS = ("perception3d.data.nuscenes_info", "perception3d.simulation.command")


def parser() -> argparse.ArgumentParser:
    """Return the options of all data sets."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = options.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    for module in DATASETS:
        importlib.import_module(module).register(subparsers)
    for command in subparsers.choices.values():  # cli.run adds it before the data set only
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS)
    return options


def show_progress(items: Iterable[Any], total: int, text: str) -> Iterable[Any]:
    """Show a bar with the remaining time on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=text, disable=not sys.stderr.isatty())


def main(arguments: argparse.Namespace) -> None:
    """Run the command of a data set."""
    for line in arguments.command(arguments, show_progress):
        print(line)


if __name__ == "__main__":
    cli.run(main, parser())
