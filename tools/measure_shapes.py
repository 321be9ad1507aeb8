#!/usr/bin/env python3
"""Measure how large the sparse parts of a network get on your data.

Points in range, voxels, windows, voxels per window, sets and how full they are, per stage: what
buffers, deployment profiles and benchmarks need to know. Voxels of a stage are also the length of
the sequence that a scan sees.

  tools/measure_shapes.py FOLDER --config configs/dsvt/dsvt_nuscenes_pillar.py
  tools/measure_shapes.py infos.jsonl --grid dsvt_waymo_voxel voxel_mamba_waymo
  tools/measure_shapes.py FOLDER --voxel-size 0.3 0.3 8 --range -54 -54 -5 54 54 3 --window 30 30 1
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout need not be installed

from perception3d.engine import cli

if TYPE_CHECKING:
    from perception3d.benchmark.shapes import GridSettings


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("data", help="point cloud file, folder or glob; or an info file (.jsonl)")
    options.add_argument("--config", metavar="FILE", help="take grid and windows from a config")
    options.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="change the config"
    )
    options.add_argument(
        "--grid", nargs="+", default=[], metavar="NAME", help="published grids, or 'all'"
    )
    options.add_argument("--voxel-size", type=float, nargs=3, metavar=("X", "Y", "Z"))
    options.add_argument("--range", type=float, nargs=6, metavar="M", help="x y z min, x y z max")
    options.add_argument("--window", type=int, nargs=3, metavar=("X", "Y", "Z"), help="in cells")
    options.add_argument("--shift", type=int, nargs=3, default=[0, 0, 0], metavar=("X", "Y", "Z"))
    options.add_argument("--set-size", type=int, metavar="N", help="cut the windows into sets")
    options.add_argument("--data-root", metavar="DIR", help="of an info file, default its folder")
    options.add_argument("--columns", type=int, metavar="N", help="numbers per point of .bin files")
    options.add_argument("--frames", type=int, metavar="N", help="only so many, evenly spread")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the report here")
    return options


def chosen_grids(arguments: argparse.Namespace) -> "list[GridSettings]":
    """Return what is to be measured; at least one grid."""
    from perception3d.benchmark.official_grids import OFFICIAL_GRIDS
    from perception3d.benchmark.shapes import GridSettings, Partition, Stage
    from perception3d.errors import UserError, unknown

    grids = []
    if arguments.config is not None:
        from perception3d.engine.shape_settings import settings_of_config

        grids.append(settings_of_config(arguments.config, arguments.cfg_options))
    for name in OFFICIAL_GRIDS if arguments.grid == ["all"] else arguments.grid:
        if name not in OFFICIAL_GRIDS:
            raise UserError(f"--grid: {unknown(name, list(OFFICIAL_GRIDS), 'grid')}")
        grids.append(OFFICIAL_GRIDS[name])
    if (arguments.voxel_size is None) != (arguments.range is None):
        raise UserError("--voxel-size and --range go together")
    if arguments.voxel_size is not None:
        cuts = ()
        if arguments.window is not None:
            cuts = (Partition(tuple(arguments.window), tuple(arguments.shift), arguments.set_size),)
        stages = (Stage("voxels", partitions=cuts),)
        size, extent = tuple(arguments.voxel_size), tuple(arguments.range)
        grids.append(GridSettings("grid", size, extent, stages))
    if not grids:
        raise UserError("nothing to measure: give --config, --grid, or --voxel-size and --range")
    return grids


def main(arguments: argparse.Namespace) -> None:
    """Measure, print, store."""
    from perception3d.engine.measure_shapes import PointSource, run
    from perception3d.errors import UserError

    if arguments.frames is not None and arguments.frames < 1:
        raise UserError(f"--frames must be at least 1, got {arguments.frames}")
    source = PointSource(arguments.data, arguments.data_root, arguments.columns, arguments.frames)
    run(source, chosen_grids(arguments), arguments.json)


if __name__ == "__main__":
    cli.run(main, parser())
