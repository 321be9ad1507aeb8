#!/usr/bin/env python3
"""Turn a released checkpoint of an official implementation into one of ours.

Every tensor must find its place: exit code 1 and no file otherwise.  The input is read without
executing anything in it; the result loads with tools/test.py and tools/train.py --load-from.
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
    options.add_argument("source", metavar="IN", type=Path, help="official checkpoint (.pth)")
    options.add_argument("target", metavar="OUT", type=Path, help="checkpoint to write")
    options.add_argument("--system", required=True, help="whose names IN has, e.g. dsvt")
    options.add_argument("--config", required=True, help="config of the same model")
    return options


def main(arguments: argparse.Namespace) -> None:
    """Convert."""
    from perception3d.checkpoint import SYSTEMS, load_official, read_official
    from perception3d.checkpoint.report import print_load_report
    from perception3d.engine.build import build
    from perception3d.engine.checkpoint_file import save_checkpoint
    from perception3d.engine.config import load_config, plain
    from perception3d.errors import UserError, unknown

    if arguments.system not in SYSTEMS:
        raise UserError(f"--system: {unknown(arguments.system, sorted(SYSTEMS), 'system')}")
    weights = read_official(arguments.source)
    config = load_config(arguments.config)
    if "model" not in config:
        raise UserError(f"{arguments.config}: has no section 'model'")
    model = build(plain(config)["model"], path="model")
    if weights.keys() == model.state_dict().keys():
        raise UserError(
            f"{arguments.source} has our names already: use it as it is, nothing to convert"
        )
    report = load_official(model.net, weights, arguments.system, strict=False)
    print_load_report(report)
    if not report.complete:
        raise UserError(
            f"{arguments.source} does not fit {arguments.config}: {len(report.missing)} tensors "
            f"missing, {len(report.unexpected)} unexpected; name the config of the same model; "
            "nothing was written"
        )
    arguments.target.parent.mkdir(parents=True, exist_ok=True)
    meta = {"converted_from": arguments.source.name, "system": arguments.system}
    save_checkpoint(arguments.target, {"state_dict": model.state_dict(), "meta": meta})
    print(f"{arguments.target}: {len(report.matched)} tensors")


if __name__ == "__main__":
    cli.run(main, parser())
