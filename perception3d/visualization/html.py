"""A frame as one HTML file that can be turned and zoomed: no server, no network, no library."""

import base64
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception3d.structures import Detections, Sample
from perception3d.visualization.colors import (
    BACKGROUND,
    GRID,
    Color,
    palette,
    point_colors,
)
from perception3d.visualization.layers import (
    BOX_EDGES,
    BoxLayer,
    box_layers,
    class_counts,
    summary,
)
from perception3d.visualization.scene import range_rings

UNIT = 0.01  # m per step of the stored coordinates
MAX_POINTS = 400_000


def frame_html(
    sample: Sample,
    classes: Sequence[str],
    detections: Detections | None = None,
    forward: str = "y",
    color_by: str = "height",
) -> str:
    """Return a page that shows a frame in 3D.

    Points are stored to the centimetre; those beyond 327 m are left out, and of more than
    400,000 evenly spread ones are kept.

    Args:
        sample: frame; annotations are drawn where it has targets.
        classes: names that the labels count.
        detections: boxes found, None for annotations only.
        forward: LiDAR axis that points ahead: "y" (nuScenes) or "x" (KITTI, Waymo).
        color_by: "height" or "intensity" colours the points.
    """
    layers = box_layers(sample, classes, detections)
    points = sample.points.detach().cpu().numpy()
    with np.errstate(invalid="ignore"):
        near = (np.abs(points[:, :3]) < 32767 * UNIT).all(axis=1)  # false for NaN
    points = points[near]
    points = points[:: max(1, -(-len(points) // MAX_POINTS))]
    legend = [
        {"name": name.replace("_", " "), "color": _css(color), "count": count}
        for name, color, count in zip(
            classes, palette(classes), class_counts(classes, layers), strict=True
        )
    ]
    scene = {
        "token": sample.token,
        "counts": summary(sample, layers),
        "forward": forward,
        "background": list(BACKGROUND),
        "unit": UNIT,
        "points": _base64((points[:, :3] / UNIT).round().astype("<i2")),
        "colors": _base64(point_colors(points, color_by)),
        "rings": _rows(range_rings(points)),
        "ring_color": _css(GRID),
        "legend": legend,
        # annotations last, as in the other pictures
        "layers": [_layer(layer) for layer in reversed(layers)],
    }
    # "</script>" in a token must not end the element that holds the data
    data = json.dumps(scene, allow_nan=False).replace("<", "\\u003c")
    template = resources.files("perception3d.visualization").joinpath("viewer.html")
    return template.read_text(encoding="utf-8").replace("__SCENE__", data)


def _layer(layer: BoxLayer) -> dict[str, Any]:
    headings = layer.headings()
    boxes = []
    for row in range(len(layer)):
        corners = layer.corners[row]
        lines = np.concatenate([corners[np.array(BOX_EDGES)], headings[row : row + 1]])
        anchor = corners[4:].mean(axis=0)
        boxes.append(
            {
                "color": _css(layer.colors[row]),
                "label": layer.label(row),
                "anchor": anchor.round(3).tolist(),
                "lines": _rows(lines),
            }
        )
    name = "annotated" if layer.scores is None else "predicted"
    return {"name": name, "dashed": layer.dashed, "boxes": boxes}


def _rows(lines: NDArray[np.float64]) -> list[list[float]]:
    rows: list[list[float]] = lines.reshape(-1, 6).round(3).tolist()
    return rows


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _css(color: Color) -> str:
    red, green, blue = color
    return f"#{red:02x}{green:02x}{blue:02x}"
