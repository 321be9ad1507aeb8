#!/usr/bin/env python3
"""Write docs/performance.md from the stored benchmark reports."""

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout need not be installed

from perception3d.engine import cli

ROOT = Path(__file__).resolve().parents[1]


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results", metavar="DIR"
    )
    options.add_argument(
        "--page", type=Path, default=ROOT / "docs" / "performance.md", metavar="FILE"
    )
    return options


def main(arguments: argparse.Namespace) -> None:
    """Read the reports, write the page."""
    from perception3d.benchmark.report import read_reports, render
    from perception3d.errors import UserError

    reports = read_reports(arguments.results)
    if not reports:
        raise UserError(f"no report (*.json) in {arguments.results}; tools/benchmark_ops.py --json")
    arguments.page.write_text(render(reports))
    print(f"{arguments.page}: {len(reports)} reports")


if __name__ == "__main__":
    cli.run(main, parser())
