#!/usr/bin/env python3
"""Draw frames of a data set: `tools/visualize.py CONFIG --mode gt --out-dir DIR`.

Writes a bird's-eye view, a 3D scene and the camera images of each frame as PNG.  `--mode pred`
runs a checkpoint and draws its boxes in the colours of their classes, with annotations as white
dashes beside them.  Nothing needs a display or a GPU.
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
    options.add_argument("--mode", choices=("gt", "pred"), default="gt", help="boxes to draw")
    options.add_argument("--checkpoint", help="checkpoint of the config's model, for --mode pred")
    options.add_argument("--device", help="cpu, cuda or cuda:N; default cuda where there is one")
    options.add_argument(
        "--split", choices=("train", "val", "test"), default="val", help="which data loader's data"
    )
    options.add_argument(
        "--bbox-score", type=float, default=0.3, help="draw boxes from this score on, default 0.3"
    )
    options.add_argument(
        "--out-dir",
        type=Path,
        default=Path("work_dirs/pictures"),
        metavar="DIR",
        help="folder for the pictures, default work_dirs/pictures",
    )
    options.add_argument(
        "--frames", type=int, metavar="N", help="draw N frames, evenly spread; default all"
    )
    options.add_argument("--bev", action="store_true", help="the bird's-eye view alone")
    options.add_argument(
        "--no-gt", action="store_true", help="--mode pred: leave the annotations out"
    )
    cli.add_pictures(options)
    return options


def main(arguments: argparse.Namespace) -> None:
    """Draw."""
    from perception3d.engine.config import load_config
    from perception3d.engine.dataset_pictures import DatasetPictureOptions, draw_dataset
    from perception3d.engine.inference import Predictor
    from perception3d.engine.network import load_dataset
    from perception3d.errors import UserError
    from perception3d.visualization.pictures import PictureOptions

    everything = not arguments.bev
    pictures = PictureOptions(
        arguments.forward,
        arguments.color_by,
        arguments.reach,
        scene=everything,
        cameras=everything,
        html=arguments.html,
    )
    options = DatasetPictureOptions(
        out_dir=arguments.out_dir,
        num_frames=arguments.frames,
        score_threshold=arguments.bbox_score,
        show_annotations=not arguments.no_gt,
        show=arguments.show,
        pictures=pictures,
    )
    predictor = None
    if arguments.mode == "pred":
        if arguments.checkpoint is None:
            raise UserError("--mode pred needs --checkpoint FILE")
        predictor = Predictor.from_files(
            arguments.config, arguments.checkpoint, arguments.device, arguments.cfg_options
        )
    config = load_config(arguments.config, arguments.cfg_options)
    draw_dataset(load_dataset(config, arguments.split), predictor, options, say=print)


if __name__ == "__main__":
    cli.run(main, parser())
