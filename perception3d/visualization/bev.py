"""Bird's-eye view as a picture: no window, no graphics driver, only arrays and Pillow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception3d.structures import Detections, Sample
from perception3d.visualization.canvas import Canvas
from perception3d.visualization.colors import (
    BACKGROUND,
    GRID,
    MUTED,
    PANEL,
    TEXT,
    point_colors,
)
from perception3d.visualization.layers import (
    TITLE_HEIGHT,
    BoxLayer,
    box_layers,
    draw_legend,
    draw_title,
)

PANEL_WIDTH = 260


@dataclass(frozen=True)
class BevView:
    """Which ground is shown, and how large.

    Attributes:
        reach: metres from the sensor to each edge of the square.
        side: pixels along each edge of the square.
        forward: LiDAR axis that points up in the picture: "y" (nuScenes) or "x" (KITTI, Waymo).
        ring_spacing: metres between range rings.
        color_by: "height" or "intensity" colours the points.

    Raises:
        ValueError: reach or ring spacing not above 0, side below 64, an unknown word.
    """

    reach: float = 54.0
    side: int = 1080
    forward: str = "y"
    ring_spacing: float = 10.0
    color_by: str = "height"

    def __post_init__(self) -> None:
        if not (self.reach > 0 and self.ring_spacing > 0):
            raise ValueError(
                f"BevView: reach and ring_spacing must be > 0 m, "
                f"got {self.reach} and {self.ring_spacing}"
            )
        if self.side < 64:
            raise ValueError(f"BevView: side must be >= 64 pixels, got {self.side}")
        if self.forward not in ("x", "y"):
            raise ValueError(f"BevView: forward must be 'x' or 'y', got {self.forward!r}")

    @property
    def pixels_per_metre(self) -> float:
        """Scale of the picture."""
        return self.side / (2 * self.reach)

    def to_pixels(self, xy: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Map LiDAR positions (..., 2), m, to pixels (..., 2) of the finished picture."""
        x, y = np.asarray(xy, dtype=np.float64)[..., 0], np.asarray(xy, dtype=np.float64)[..., 1]
        right, up = (x, y) if self.forward == "y" else (-y, x)
        column = (right + self.reach) * self.pixels_per_metre
        row = (self.reach - up) * self.pixels_per_metre + TITLE_HEIGHT
        return np.stack([column, row], axis=-1)


def draw_bev(
    sample: Sample,
    classes: Sequence[str],
    detections: Detections | None = None,
    view: BevView | None = None,
) -> NDArray[np.uint8]:
    """Draw a frame from above: points, boxes with headings and scores, range rings, legend.

    Args:
        sample: frame; annotations are drawn where it has targets.
        classes: names that the labels count.
        detections: boxes found, None for annotations only.
        view: ground and size, default +-54 m.

    Returns:
        (H, W, 3) uint8 RGB: the square of `view.side` pixels below a title, legend on its right.
    """
    view = view or BevView()
    layers = box_layers(sample, classes, detections)
    ground = _grid(view)
    _splat(ground, sample.points.detach().cpu().numpy(), view)
    canvas = Canvas(ground)
    # annotations last: their thin dashes would vanish below the filled detections
    for layer in reversed(layers):
        for row in layer.by_score():
            _draw_box(canvas, layer, row, view)
    _draw_sensor(canvas, view)
    _draw_ring_labels(canvas, view)
    # boxes that stand over the edge of the square end there
    canvas.rectangle((view.side, 0), (canvas.width, canvas.height), BACKGROUND)
    canvas.rectangle((0, 0), (canvas.width, TITLE_HEIGHT), BACKGROUND)
    height = draw_legend(
        canvas, (view.side + 10, TITLE_HEIGHT), classes, layers, width=PANEL_WIDTH - 20
    )
    _draw_key(canvas, view, TITLE_HEIGHT + height + 10)
    draw_title(canvas, sample, layers)
    return canvas.finish()


def _grid(view: BevView) -> NDArray[np.uint8]:
    canvas = Canvas.blank(view.side + PANEL_WIDTH, view.side + TITLE_HEIGHT)
    center = tuple(view.to_pixels(np.zeros(2)))
    left, top, right, bottom = 0.0, float(TITLE_HEIGHT), float(view.side), float(canvas.height)
    canvas.line([(left, center[1]), (right, center[1])], GRID, 1.0, alpha=0.6)
    canvas.line([(center[0], top), (center[0], bottom)], GRID, 1.0, alpha=0.6)
    for radius in _ring_radii(view):
        canvas.ring(center, radius * view.pixels_per_metre, GRID, 1.0)
    return canvas.finish()


def _ring_radii(view: BevView) -> NDArray[np.float64]:
    return np.arange(view.ring_spacing, view.reach * np.sqrt(2.0), view.ring_spacing)


def _splat(image: NDArray[np.uint8], points: NDArray[np.float32], view: BevView) -> None:
    """Paint points into the picture, each shared among the four pixels around it."""
    points = points[np.isfinite(points[:, :3]).all(axis=1)]
    pixels = view.to_pixels(points[:, :2]) - 0.5  # pixel centres
    low = np.array([0.0, TITLE_HEIGHT])
    inside = ((pixels >= low) & (pixels < low + view.side - 1)).all(axis=1)
    if not inside.any():
        return
    colors = point_colors(points, view.color_by)[inside].astype(np.float64)
    pixels = pixels[inside]
    corner = np.floor(pixels).astype(np.int64)
    share = pixels - corner
    width = image.shape[1]
    weight = np.zeros(image.shape[0] * width)
    color = np.zeros((3, len(weight)))
    for right in (0, 1):
        for down in (0, 1):
            cell = (corner[:, 1] + down) * width + corner[:, 0] + right
            part = np.abs(1 - right - share[:, 0]) * np.abs(1 - down - share[:, 1])
            weight += np.bincount(cell, part, len(weight))
            for channel in range(3):
                color[channel] += np.bincount(cell, part * colors[:, channel], len(weight))
    touched = weight > 0
    # a lone point off the pixel centre still shows; many points never exceed their colour
    cover = np.minimum(1.0, 2.5 * weight[touched])
    flat = image.reshape(-1, 3)
    mean = (color[:, touched] / weight[touched]).T
    flat[touched] = (cover[:, None] * mean + (1 - cover[:, None]) * flat[touched]).round()


def _draw_box(canvas: Canvas, layer: BoxLayer, row: int, view: BevView) -> None:
    outline = [tuple(corner) for corner in view.to_pixels(layer.corners[row, :4, :2])]
    inside = [
        0 <= x <= view.side and TITLE_HEIGHT <= y <= TITLE_HEIGHT + view.side for x, y in outline
    ]
    if not any(inside):
        return
    color = layer.colors[row]
    heading = [tuple(end) for end in view.to_pixels(layer.headings()[row, :, :2])]
    if layer.dashed:
        canvas.dashes([*outline, outline[0]], color, 1.2, dash=3.5)
        canvas.line(heading, color, 1.0)
        return
    canvas.polygon(outline, color, 1.6, fill_alpha=0.22)
    canvas.line(heading, color, 1.6)
    label = layer.label(row)
    if label:
        right = max(x for x, _ in outline)
        top = min(y for _, y in outline)
        canvas.text((right + 3, top), label, color, 12, "lm", yields=True)


def _draw_sensor(canvas: Canvas, view: BevView) -> None:
    """Mark the sensor with an arrow head that points forward."""
    x, y = view.to_pixels(np.zeros(2))
    arrow = [(x, y - 9.0), (x + 6.0, y + 7.0), (x, y + 3.5), (x - 6.0, y + 7.0)]
    canvas.polygon(arrow, TEXT, 1.0, fill_alpha=1.0)


def _draw_ring_labels(canvas: Canvas, view: BevView) -> None:
    x, y = view.to_pixels(np.zeros(2))
    for radius in _ring_radii(view):
        offset = radius * view.pixels_per_metre
        if offset < view.side / 2:
            canvas.text((x - offset + 4, y - 2), f"{radius:g} m", MUTED, 12, "ld", yields=True)


def _draw_key(canvas: Canvas, view: BevView, top: float) -> None:
    """Say what point colours, rings and the upward direction mean."""
    left = view.side + 10.0
    canvas.rectangle((left, top), (left + PANEL_WIDTH - 20, top + 92), PANEL)
    lines = (
        f"points: by {view.color_by}",
        f"rings: every {view.ring_spacing:g} m",
        f"up: LiDAR +{view.forward}, forward",
    )
    for number, line in enumerate(lines):
        canvas.text((left + 14, top + 23 + 24 * number), line, MUTED, 14, "lm")
