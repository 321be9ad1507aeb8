"""The command `create_data.py synthetic`."""

import argparse
import os
from pathlib import Path
from typing import Any

from perception3d.errors import UserError
from perception3d.simulation.settings import IMAGE_CHOICES, MAX_SWEEPS, Settings


def _size(text: str) -> tuple[int, int]:
    """Read "704x256"."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 704x256, got {text!r}")
    return int(parts[0]), int(parts[1])


def register(subparsers: Any) -> None:  # noqa: ANN401  # argparse's own type is private
    """Add the command to the sub-parsers of create_data.py."""
    parser = subparsers.add_parser(
        "synthetic", help="simulate driving scenes as a nuScenes-schema data set"
    )
    add = parser.add_argument
    add("--out-dir", type=Path, required=True, help="data root to make")
    add("--scenes", type=int, default=10)
    add("--frames-per-scene", type=int, default=16, help="key frames, 0.5 s apart")
    add("--val-scenes", type=int, default=2, help="the last scenes, for synthetic_val")
    add("--seed", type=int, default=0, help="the same seed gives the same bytes")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    add("--image-size", type=_size, default=(704, 256), metavar="WxH")
    add("--images", choices=IMAGE_CHOICES, default="all", help="which scenes get images")
    add("--no-images", action="store_const", const="none", dest="images")
    add("--no-occupancy", action="store_false", dest="occupancy")
    add("--sweeps-per-keyframe", type=int, default=MAX_SWEEPS, help=f"1 to {MAX_SWEEPS}")
    add("--version", default="v1.0-synthetic", help="folder of the tables")
    add("--overwrite", action="store_true", help="replace --out-dir")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace, progress: Any) -> list[str]:  # noqa: ANN401  # see generate.Progress
    """Generate the data set and return the lines to print."""
    if args.workers < 1:
        raise UserError(f"--workers must be at least 1, got {args.workers}")
    try:
        import open3d  # noqa: F401  # takes half a second: not at --help
    except ImportError as error:
        raise UserError(
            f"the simulator needs open3d ({error}); pip install 'perception3d[visualization]'"
        ) from error
    from perception3d.simulation.generate import generate

    settings = Settings(
        out_dir=args.out_dir,
        scenes=args.scenes,
        frames_per_scene=args.frames_per_scene,
        val_scenes=args.val_scenes,
        seed=args.seed,
        image_size=args.image_size,
        images=args.images,
        occupancy=args.occupancy,
        sweeps_per_keyframe=args.sweeps_per_keyframe,
        version=args.version,
        overwrite=args.overwrite,
    )
    summary = generate(settings, args.workers, progress)
    resumed = f" ({summary.num_resumed} from an earlier run)" if summary.num_resumed else ""
    rows = summary.rows
    return [
        f"{summary.root}: {summary.version}, {summary.num_scenes} scenes{resumed}, "
        f"{rows['sample']} key frames, {rows['sample_data']} files, "
        f"{rows['sample_annotation']} boxes",
    ]
