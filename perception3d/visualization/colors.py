"""Colours: one per class name, the same in every picture, and a ramp for points."""

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]

BACKGROUND: Color = (13, 17, 23)
PANEL: Color = (20, 26, 34)
GRID: Color = (42, 52, 65)
TEXT: Color = (230, 237, 243)
MUTED: Color = (139, 152, 168)
GROUND_TRUTH: Color = (240, 246, 252)

# Chosen to be told apart on a dark ground; kin share a hue across data sets.
_CLASSES: dict[str, Color] = {
    "car": (77, 163, 255),
    "truck": (255, 159, 67),
    "bus": (255, 221, 77),
    "trailer": (190, 140, 255),
    "construction_vehicle": (214, 164, 106),
    "pedestrian": (255, 93, 115),
    "motorcycle": (46, 230, 197),
    "bicycle": (124, 242, 107),
    "barrier": (160, 176, 196),
    "traffic_cone": (255, 107, 214),
}
_SAME_AS = {
    "vehicle": "car",
    "van": "bus",
    "tram": "trailer",
    "cyclist": "bicycle",
    "person_sitting": "traffic_cone",
    "sign": "barrier",
}
_GOLDEN_ANGLE = 0.381966

# Dark enough at the low end to stay behind the boxes, light enough to be seen: never pure white.
_RAMP = np.array(
    [(46, 74, 125), (52, 118, 168), (67, 166, 173), (128, 205, 170), (222, 232, 178)],
    dtype=np.float64,
)


def class_color(name: str, index: int = 0) -> Color:
    """Return the colour of a class.

    Args:
        name: class name, any case; known names of nuScenes, KITTI and Waymo have fixed colours.
        index: number of the class, used for names that have none.
    """
    known = name.lower()
    known = _SAME_AS.get(known, known)
    if known in _CLASSES:
        return _CLASSES[known]
    red, green, blue = colorsys.hls_to_rgb((0.08 + index * _GOLDEN_ANGLE) % 1.0, 0.66, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def palette(classes: Sequence[str]) -> list[Color]:
    """Return one colour per class, in their order."""
    return [class_color(name, index) for index, name in enumerate(classes)]


def ramp(values: NDArray[np.floating[Any]], low: float, high: float) -> NDArray[np.uint8]:
    """Colour numbers: `low` and below darkest, `high` and above lightest.

    Args:
        values: (P,) any numbers; NaN counts as low.
        low: lower end.
        high: upper end; not above `low`: everything is lowest.

    Returns:
        (P, 3) uint8 RGB.
    """
    span = high - low
    share = np.zeros(len(values)) if span <= 0 else (np.asarray(values, np.float64) - low) / span
    share = np.nan_to_num(np.clip(share, 0.0, 1.0), nan=0.0)
    stops = np.linspace(0.0, 1.0, len(_RAMP))
    channels = [np.interp(share, stops, _RAMP[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def point_colors(points: NDArray[np.floating[Any]], color_by: str) -> NDArray[np.uint8]:
    """Colour points by a column, stretched between its 2nd and 98th percentile.

    Args:
        points: (P, >=3) [x, y, z, intensity, ...].
        color_by: "height" (z) or "intensity"; without an intensity column the height is taken.

    Returns:
        (P, 3) uint8 RGB.

    Raises:
        ValueError: another word.
    """
    if color_by not in ("height", "intensity"):
        raise ValueError(f"color_by must be 'height' or 'intensity', got {color_by!r}")
    column = 3 if color_by == "intensity" and points.shape[1] > 3 else 2
    values = points[:, column]
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return ramp(values, 0.0, 1.0)
    low, high = np.percentile(finite, (2, 98))
    return ramp(values, float(low), float(high))
