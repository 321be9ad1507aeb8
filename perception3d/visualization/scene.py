"""A frame in 3D, seen from behind and above the sensor."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perception3d.structures import Detections, Sample
from perception3d.visualization.bev import BevView, draw_bev
from perception3d.visualization.cameras import project
from perception3d.visualization.canvas import Canvas
from perception3d.visualization.colors import BACKGROUND, GRID, point_colors
from perception3d.visualization.geometry import SceneGeometry, Viewpoint
from perception3d.visualization.layers import (
    BOX_EDGES,
    FRONT_FACE,
    TITLE_HEIGHT,
    BoxLayer,
    box_layers,
    draw_legend,
    draw_title,
)
from perception3d.visualization.rendering import (
    Renderer,
    RenderingUnavailable,
    default_renderer,
    show_window,
)

_SMOOTHING = 2  # rendered this much larger, then shrunk
_DASH = 0.35  # m


@dataclass(frozen=True)
class SceneStyle:
    """How a scene looks.

    Attributes:
        forward: LiDAR axis that points ahead: "y" (nuScenes) or "x" (KITTI, Waymo).
        width: pixels.
        height: pixels.
        color_by: "height" or "intensity" colours the points.
    """

    forward: str = "y"
    width: int = 1600
    height: int = 900
    color_by: str = "height"

    def viewpoint(self) -> Viewpoint:
        """Return the camera."""
        return Viewpoint.behind(self.forward, self.width, self.height)


def draw_scene(
    sample: Sample,
    classes: Sequence[str],
    detections: Detections | None = None,
    style: SceneStyle | None = None,
    renderer: Renderer | None = None,
) -> NDArray[np.uint8]:
    """Draw a frame in 3D: points, boxes with headings and scores, legend.

    Where no 3D rendering works, the bird's-eye view is drawn instead, with one warning.

    Args:
        sample: frame; annotations are drawn where it has targets.
        classes: names that the labels count.
        detections: boxes found, None for annotations only.
        style: size and colours.
        renderer: default: one shared by the process.

    Returns:
        (style.height, style.width, 3) uint8 RGB; another size where the bird's-eye view stands in.
    """
    style = style or SceneStyle()
    layers = box_layers(sample, classes, detections)
    view = style.viewpoint()
    large = Viewpoint.behind(style.forward, style.width * _SMOOTHING, style.height * _SMOOTHING)
    renderer = renderer or default_renderer()
    try:
        image = renderer.render(scene_geometry(sample, layers, style.color_by, _SMOOTHING), large)
    except RenderingUnavailable as reason:
        if not renderer.failure_told:
            renderer.failure_told = True
            warnings.warn(
                f"no 3D rendering here ({reason}); the bird's-eye view is drawn instead; pip "
                "install 'perception3d[visualization]' and the system packages libegl1, libgl1, "
                "mesa-vulkan-drivers bring it",
                stacklevel=2,
            )
        return draw_bev(
            sample, classes, detections, BevView(forward=style.forward, color_by=style.color_by)
        )
    canvas = Canvas(np.asarray(Image.fromarray(image).reduce(_SMOOTHING)))
    for layer in reversed(layers):
        _draw_overlay(canvas, layer, view)
    draw_title(canvas, sample, layers)
    draw_legend(canvas, (16, TITLE_HEIGHT + 8), classes, layers)
    return canvas.finish()


def show_scene(
    sample: Sample,
    classes: Sequence[str],
    detections: Detections | None = None,
    style: SceneStyle | None = None,
) -> None:
    """Show a frame in a window until it is closed.

    Raises:
        RenderingUnavailable: no display, or no window could be opened.
    """
    style = style or SceneStyle()
    layers = box_layers(sample, classes, detections)
    show_window(scene_geometry(sample, layers, style.color_by), style.viewpoint())


def scene_geometry(
    sample: Sample, layers: Sequence[BoxLayer], color_by: str = "height", enlarged: int = 1
) -> SceneGeometry:
    """Return the points, box edges, headings and range rings of a frame.

    Args:
        sample: frame.
        layers: its boxes.
        color_by: "height" or "intensity" colours the points.
        enlarged: factor on point size and line width.
    """
    points = sample.points.detach().cpu().numpy()
    points = points[np.isfinite(points[:, :3]).all(axis=1)]
    rings = range_rings(points)
    lines, colors = [rings], [GRID] * len(rings)
    for layer in layers:
        for row in range(len(layer)):
            box = layer.corners[row][np.array(BOX_EDGES)]
            box = np.concatenate([box, layer.headings()[row : row + 1]])
            edges = np.concatenate([_dashed(edge) for edge in box]) if layer.dashed else box
            lines.append(edges)
            colors += [layer.colors[row]] * len(edges)
    return SceneGeometry(
        points=points[:, :3],
        point_colors=point_colors(points, color_by),
        lines=np.concatenate(lines),
        line_colors=np.array(colors, dtype=np.uint8),
        point_size=1.8 * enlarged,
        line_width=1.5 * enlarged,
        background=BACKGROUND,
    )


def range_rings(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return circles of 10 to 50 m around the sensor as lines (L, 2, 3), m, near the ground.

    Args:
        points: (P, >=3) finite points, to find the ground.
    """
    angle = np.linspace(0.0, 2 * np.pi, 181)
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros(181)], axis=1)
    rings = np.stack([radius * circle for radius in (10.0, 20.0, 30.0, 40.0, 50.0)])
    rings[:, :, 2] = _ground_level(points)
    lines: NDArray[np.float64] = np.stack([rings[:, :-1], rings[:, 1:]], axis=2)
    return lines.reshape(-1, 2, 3)


def _ground_level(points: NDArray[np.float32]) -> float:
    """Guess where the rings lie: below nearly all points within 20 m."""
    near = points[np.abs(points[:, :2]).max(axis=1) < 20.0, 2] if len(points) else points[:, 2]
    return float(np.percentile(near, 5)) if len(near) else 0.0


def _dashed(edge: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut a line (2, 3) into every second of its pieces (D, 2, 3)."""
    length = float(np.linalg.norm(edge[1] - edge[0]))
    pieces = 2 * int(min(length, 100.0) / _DASH / 2) + 1
    stops = np.linspace(edge[0], edge[1], pieces + 1)
    return np.stack([stops[:-1:2], stops[1::2]], axis=1)


def _draw_overlay(canvas: Canvas, layer: BoxLayer, view: Viewpoint) -> None:
    """Shade the front faces and write the scores: both are flat in the picture."""
    pixels, _ = project(layer.corners, view.world_to_camera(), view.intrinsics())
    for row in layer.by_score():
        if not np.isfinite(pixels[row]).all():
            continue
        if not layer.dashed:
            front = [tuple(corner) for corner in pixels[row, list(FRONT_FACE)]]
            canvas.shade(front, layer.colors[row], 0.28)
        label = layer.label(row)
        if label:
            top = pixels[row, 4:]
            at = (float(top[:, 0].mean()), float(top[:, 1].min()) - 4)
            canvas.text(at, label, layer.colors[row], 12, "md", yields=True)
