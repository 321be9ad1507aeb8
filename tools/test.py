#!/usr/bin/env python3
"""Evaluate a checkpoint: `tools/test.py CONFIG CHECKPOINT`.

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
    options.add_argument("checkpoint", help="checkpoint file; a folder with --eval-all")
    cli.add_runtime(options)
    options.add_argument(
        "--eval-all", action="store_true", help="evaluate every epoch_N.pth of a work folder"
    )
    options.add_argument(
        "--format-only", action="store_true", help="write the submission file, compute no metric"
    )
    options.add_argument(
        "--out", metavar="DIR", help="folder for the submission file and metrics.json"
    )
    options.add_argument("--show-dir", metavar="DIR", help="draw detections as PNG (no window)")
    options.add_argument(
        "--show-max", type=int, default=20, metavar="N", help="frames to draw, default 20"
    )
    options.add_argument(
        "--score-thr",
        dest="score_threshold",
        type=float,
        default=0.3,
        help="draw boxes from this score on, default 0.3",
    )
    return options


def main(arguments: argparse.Namespace) -> None:
    """Test."""
    from perception3d.engine.options import RunOptions, TestOptions
    from perception3d.engine.run import evaluate

    run_options = cli.options_of(RunOptions, arguments)
    options = cli.options_of(TestOptions, arguments)
    evaluate(arguments.config, arguments.cfg_options, run_options, options)


if __name__ == "__main__":
    cli.run(main, parser())
