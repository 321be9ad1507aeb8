#!/usr/bin/env python3
"""Detect objects in point-cloud files: `tools/demo.py FILE CONFIG CHECKPOINT`.

FILE is a file, a folder or a glob of .bin, .npy, .npz, .pcd, .ply, .las, .laz.  For each cloud a
report on its columns is printed, and the boxes are written as JSON and as pictures.  Nothing needs
a display or a GPU.
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
    options.add_argument("input", metavar="FILE", help="cloud file, folder or glob")
    cli.add_config(options)
    options.add_argument("checkpoint", help="checkpoint of the config's model")
    options.add_argument("--device", help="cpu, cuda or cuda:N; default cuda where there is one")
    options.add_argument(
        "--score-thr", type=float, default=0.3, help="keep boxes from this score on, default 0.3"
    )
    options.add_argument(
        "--out-dir",
        type=Path,
        default=Path("work_dirs/demo_output"),
        metavar="DIR",
        help="folder for results, default work_dirs/demo_output",
    )
    options.add_argument(
        "--columns", type=int, metavar="N", help="numbers per point of .bin files; default: guessed"
    )
    options.add_argument(
        "--drop-invalid",
        action="store_true",
        help="leave out points with NaN or infinity, a scanner's missing returns",
    )
    options.add_argument(
        "--intensity-scale",
        type=float,
        default=1.0,
        metavar="F",
        help="multiply intensities, e.g. 255 where the file has 0..1 and the model knows 0..255",
    )
    options.add_argument(
        "--z-offset", type=float, default=0.0, metavar="M", help="lift the cloud by M metres"
    )
    cli.add_pictures(options)
    return options


def main(arguments: argparse.Namespace) -> None:
    """Run the demo."""
    from perception3d.engine.demo import DemoOptions, run_demo
    from perception3d.engine.inference import Predictor
    from perception3d.visualization.pictures import PictureOptions

    options = DemoOptions(
        score_threshold=arguments.score_thr,
        out_dir=arguments.out_dir,
        columns=arguments.columns,
        drop_invalid=arguments.drop_invalid,
        intensity_scale=arguments.intensity_scale,
        z_offset=arguments.z_offset,
        show=arguments.show,
        pictures=PictureOptions(
            arguments.forward, arguments.color_by, arguments.reach, html=arguments.html
        ),
    )
    run_demo(
        arguments.input,
        lambda: Predictor.from_files(
            arguments.config, arguments.checkpoint, arguments.device, arguments.cfg_options
        ),
        options,
        say=print,
    )


if __name__ == "__main__":
    cli.run(main, parser())
