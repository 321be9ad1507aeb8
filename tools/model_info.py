#!/usr/bin/env python3
"""Parameters and arithmetic of a model, part by part, on a real cloud or a synthetic one.

Sparse parts are counted from the voxels and sets that the cloud really has.
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
    options.add_argument("--device", help="cpu, cuda or cuda:N")
    cli.add_workload(options)
    return options


def main(arguments: argparse.Namespace) -> None:
    """Count and print."""
    from perception3d.engine.config import load_config
    from perception3d.engine.model_info import examine, report
    from perception3d.engine.network import load_network
    from perception3d.engine.workload import make_batch

    config = load_config(arguments.config, arguments.cfg_options)
    net = load_network(config, device=arguments.device)
    batch = make_batch(config, arguments.workload, arguments.frames, net)
    print(report(examine(net, batch)))


if __name__ == "__main__":
    cli.run(main, parser())
