"""Prepare data sets: `create_data.py nuscenes --root-path R`, `create_data.py synthetic ...`.

Each data set brings its own command: a module with `register(subparsers)` that sets `run`, a
function of (arguments, progress) which returns the lines to print.
"""

import argparse
import importlib
import sys
from collections.abc import Iterable
from typing import Any

DATASETS = ("perception3d.data.nuscenes_info",)


def show_progress(items: Iterable[Any], total: int, text: str) -> Iterable[Any]:
    """Show a bar with remaining time on a terminal, nothing otherwise."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=text, disable=not sys.stderr.isatty())


def main() -> int:
    """Run one command; 0 done, 1 failure, 2 wrong usage."""
    from perception3d.errors import UserError

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    subparsers = parser.add_subparsers(dest="dataset", required=True)
    for module in DATASETS:
        importlib.import_module(module).register(subparsers)
    args = parser.parse_args()
    try:
        for line in args.run(args, show_progress):
            print(line)
    except UserError as error:
        if args.debug:
            raise
        print(f"create_data: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
