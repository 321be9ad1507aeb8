#!/usr/bin/env python3
"""Replay golden vectors and compare every result with the recorded one.

Exit codes: 0 every case passed; 1 a case failed or could not be replayed; 2 wrong arguments.
"""

import argparse
import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout need not be installed

from perception3d.engine import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perception3d.parity import Case


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "folder", type=Path, help="folder with a cases.json, or with subfolders that have one"
    )
    options.add_argument("--case", default="*", metavar="GLOB", help="only cases of these names")
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument(
        "--skip-kind", nargs="+", default=[], metavar="KIND", help="kinds to leave out"
    )
    options.add_argument(
        "--known",
        action="store_true",
        help="leave out, by name, what is not built yet or needs a package that is missing",
    )
    return options


def chosen_cases(arguments: argparse.Namespace) -> "list[Case]":
    """Read the cases that the arguments select; wrong arguments end the program with code 2."""
    from fnmatch import fnmatchcase

    from perception3d.benchmark.machine import check_device
    from perception3d.errors import UserError
    from perception3d.parity import CaseError, case_folders, read_cases

    try:
        check_device(arguments.device)
        cases = [
            case
            for folder in case_folders(arguments.folder)
            for case in read_cases(folder)
            if fnmatchcase(case.name, arguments.case) and case.kind not in arguments.skip_kind
        ]
        if not cases:
            raise CaseError(f"no case of {arguments.folder} matches --case {arguments.case!r}")
    except (CaseError, UserError) as error:
        if arguments.debug:
            raise
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        sys.exit(2)
    return cases


@contextmanager
def progress_bar(total: int) -> "Iterator[Callable[[], object]]":
    """Yield what to call after each case; there is no bar without tqdm."""
    if importlib.util.find_spec("tqdm") is None:
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="case", leave=False, disable=None) as bar:
        yield bar.update


def main(arguments: argparse.Namespace) -> None:
    """Run the chosen cases and print the table."""
    import torch

    from perception3d.parity import CaseOutcome, run_case
    from perception3d.parity.kinds import why_not
    from perception3d.parity.report import print_report

    cases = chosen_cases(arguments)
    if arguments.known:
        reasons = [why_not(case) for case in cases]
        for case, reason in zip(cases, reasons, strict=True):
            if reason is not None:
                print(f"left out {case.system}/{case.name}: {reason}")
        cases = [case for case, reason in zip(cases, reasons, strict=True) if reason is None]
    device = torch.device(arguments.device)
    outcomes: list[CaseOutcome] = []
    with progress_bar(len(cases)) as advance:
        while cases:  # a case keeps its arrays once they are read, so it is let go
            outcomes.append(run_case(cases.pop(0), device, debug=arguments.debug))
            advance()
    print_report(outcomes)
    sys.exit(0 if all(outcome.passed for outcome in outcomes) else 1)


if __name__ == "__main__":
    cli.run(main, parser())
