"""Replay golden vectors and compare every result with the recorded one.

Exit codes: 0 every case passed; 1 a case failed or could not be replayed; 2 wrong arguments.
"""

import argparse
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from tqdm import tqdm

from perception3d.parity import CaseError, CaseOutcome, case_folders, read_cases, run_case
from perception3d.parity.report import print_report


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="folder with a cases.json, or with subfolders that have one"
    )
    parser.add_argument("--case", default="*", metavar="GLOB", help="only cases of these names")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--skip-kind", nargs="+", default=[], metavar="KIND", help="kinds to leave out"
    )
    parser.add_argument("--debug", action="store_true", help="stop at an error with its traceback")
    return parser.parse_args()


def main() -> int:
    """Run the chosen cases and print the table."""
    arguments = parse_arguments()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("check_parity: --device cuda needs a CUDA device, and torch sees none")
        return 2
    try:
        cases = [
            case
            for folder in case_folders(arguments.folder)
            for case in read_cases(folder)
            if fnmatchcase(case.name, arguments.case) and case.kind not in arguments.skip_kind
        ]
    except CaseError as error:
        print(f"check_parity: {error}")
        return 2
    if not cases:
        print(f"check_parity: no case of {arguments.folder} matches --case {arguments.case!r}")
        return 2
    device = torch.device(arguments.device)
    outcomes: list[CaseOutcome] = []
    with tqdm(total=len(cases), unit="case", leave=False, disable=None) as progress:
        while cases:  # a case keeps its arrays once they are read, so it is let go
            outcomes.append(run_case(cases.pop(0), device, debug=arguments.debug))
            progress.update()
    print_report(outcomes)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
