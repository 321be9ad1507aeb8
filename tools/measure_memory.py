#!/usr/bin/env python3
"""Memory that a training step of a config's backbone takes on a given number of voxels.

The voxels lie on rolling sheets, one frame, features random. Recomputing blocks in the backward
pass is a setting of the backbone: --cfg-options model.net.backbone.checkpoint=True
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
    options.add_argument("--voxels", type=int, default=200_000, help="default 200000")
    return options


def main(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    from perception3d.benchmark.memory import measure_training_memory, surface_voxels
    from perception3d.engine.config import load_config
    from perception3d.engine.network import load_network
    from perception3d.errors import UserError

    config = load_config(arguments.config, arguments.cfg_options)
    net = load_network(config, device=arguments.device)
    backbone = net.get_submodule("backbone")
    device = next(backbone.parameters()).device
    try:
        voxels = surface_voxels(arguments.voxels, backbone.in_channels, backbone.grid_size, device)
    except ValueError as error:
        raise UserError(f"--voxels: {error}") from error
    found = measure_training_memory(backbone, voxels)
    print(
        f"{Path(arguments.config).stem}: {type(backbone).__name__} with {arguments.voxels:,} "
        f"voxels on {device}: {found.kept / 1e9:.2f} GB kept for the backward pass, "
        f"peak {found.peak / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    cli.run(main, parser())
