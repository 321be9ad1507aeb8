#!/usr/bin/env python3
"""Show a config with its bases and settings applied, and check every name in it.

Exit code 1 if a class does not exist or does not take an argument; nothing is built.
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
    return options


def main(arguments: argparse.Namespace) -> None:
    """Print and check."""
    from perception3d.engine.check_config import check_config
    from perception3d.engine.config import as_text, fingerprint, load_config, plain
    from perception3d.errors import UserError

    config = load_config(arguments.config, arguments.cfg_options)
    sections = plain(config)
    print(as_text(sections))
    print(f"# config {fingerprint(config)}")
    problems = check_config(sections)
    for problem in problems[1:]:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        raise UserError(problems[0])


if __name__ == "__main__":
    cli.run(main, parser())
