"""All pictures of one frame as files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perception3d.structures import Detections, Sample
from perception3d.visualization.bev import BevView, draw_bev
from perception3d.visualization.cameras import draw_cameras
from perception3d.visualization.html import frame_html
from perception3d.visualization.scene import SceneStyle, draw_scene


@dataclass(frozen=True)
class PictureOptions:
    """Which pictures, and how.

    Attributes:
        forward: LiDAR axis that points ahead: "y" (nuScenes) or "x" (KITTI, Waymo).
        color_by: "height" or "intensity" colours the points.
        reach: m from the sensor to each edge of the bird's-eye view.
        scene: draw the 3D scene.
        cameras: draw the camera images, where the frame has any.
        html: write a page that can be turned and zoomed.
    """

    forward: str = "y"
    color_by: str = "height"
    reach: float = 54.0
    scene: bool = True
    cameras: bool = True
    html: bool = False


def save_pictures(
    sample: Sample,
    classes: Sequence[str],
    folder: Path,
    detections: Detections | None = None,
    options: PictureOptions | None = None,
) -> list[Path]:
    """Draw a frame into `folder`: NAME_bev.png, NAME_3d.png, NAME_cameras.png, NAME.html.

    NAME is the token of the frame, with anything that is no letter, digit, ".", "-" or "_"
    replaced by "_".

    Args:
        sample: frame; annotations are drawn where it has targets.
        classes: names that the labels count.
        folder: made if it does not exist.
        detections: boxes found, None for annotations only.
        options: which pictures, and how.

    Returns:
        The files written.
    """
    options = options or PictureOptions()
    view = BevView(reach=options.reach, forward=options.forward, color_by=options.color_by)
    pictures: dict[str, NDArray[np.uint8]] = {"bev": draw_bev(sample, classes, detections, view)}
    if options.scene:
        style = SceneStyle(forward=options.forward, color_by=options.color_by)
        pictures["3d"] = draw_scene(sample, classes, detections, style)
    if options.cameras and sample.cameras is not None and sample.cameras.names:
        pictures["cameras"] = draw_cameras(sample, classes, detections)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, pixels in pictures.items():
        path = folder / f"{file_name(sample.token)}_{kind}.png"
        Image.fromarray(pixels).save(path)
        written.append(path)
    if options.html:
        page = frame_html(sample, classes, detections, options.forward, options.color_by)
        path = folder / f"{file_name(sample.token)}.html"
        path.write_text(page, encoding="utf-8")
        written.append(path)
    return written


def file_name(token: str) -> str:
    """Return a token as part of a file name."""
    return re.sub(r"[^\w.-]", "_", token, flags=re.ASCII) or "frame"
