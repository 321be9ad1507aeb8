"""A look at a cloud before inference: does it resemble what the model was trained on?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception3d.data.cloud_file import PointCloud
from perception3d.errors import UserError

# Sensor heights of the public car data sets lie between these (nuScenes 1.84, KITTI 1.73 m).
_USUAL_HEIGHT = (1.0, 3.0)
_FEW_POINTS = 2000
_SMALL_SHARE = 0.5


@dataclass(frozen=True)
class Preflight:
    """What was found.

    Attributes:
        num_points: finite points.
        num_dropped: points with NaN or infinity, left out.
        columns: per column (name, lowest, median, highest).
        intensity_scale: "0..1", "0..255", "0..65535", "none" (constant or no column).
        ground: estimated height of the ground in the sensor's frame, m; None where unclear.
        share_in_range: points inside the model's range, 0 to 1.
        hints: sentences, each with what to do.
    """

    num_points: int
    num_dropped: int
    columns: tuple[tuple[str, float, float, float], ...]
    intensity_scale: str
    ground: float | None
    share_in_range: float
    hints: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the report as text."""
        dropped = f", {self.num_dropped:,} with NaN or infinity dropped" if self.num_dropped else ""
        lines = [f"points     {self.num_points:,}{dropped}"]
        lines += [
            f"{name:<10} {low:10.3f} .. {high:10.3f}   median {median:10.3f}"
            for name, low, median, high in self.columns
        ]
        lines.append(f"intensity  scale {self.intensity_scale}")
        if self.ground is not None:
            lines.append(
                f"ground     z = {self.ground:.2f} m: sensor {-self.ground:.2f} m above it"
            )
        lines.append(f"in range   {_percent(self.share_in_range)} of the points")
        lines += [f"hint: {hint}" for hint in self.hints]
        return lines


def preflight(cloud: PointCloud, point_cloud_range: Sequence[float]) -> Preflight:
    """Examine a cloud.

    Args:
        cloud: at least one point.
        point_cloud_range: (x, y, z, x, y, z) low and high corner of the model, m.

    Raises:
        UserError: no point lies in the range.
    """
    points = cloud.points
    low, high = np.asarray(point_cloud_range[:3]), np.asarray(point_cloud_range[3:])
    inside = ((points[:, :3] >= low) & (points[:, :3] < high)).all(axis=1)
    share = float(inside.mean())
    if not inside.any():
        raise UserError(
            f"{cloud.path}: none of its {len(points):,} points lies in the model's range "
            f"x {low[0]:g}..{high[0]:g}, y {low[1]:g}..{high[1]:g}, z {low[2]:g}..{high[2]:g} m; "
            f"the cloud spans {_span(points)}: are the units metres and the sensor at the origin?"
        )
    scale = intensity_scale(points)
    ground = ground_level(points)
    hints = [
        *_range_hints(points, share),
        *_intensity_hints(scale),
        *_ground_hints(ground),
    ]
    if len(points) < _FEW_POINTS:
        hints.append(f"only {len(points):,} points: is this a whole scan?")
    if cloud.num_dropped > 0.5 * (len(points) + cloud.num_dropped):
        hints.append("most points are NaN or infinite: are the columns right (--columns N)?")
    table = tuple(
        (name, float(column.min()), float(np.median(column)), float(column.max()))
        for name, column in zip(cloud.columns, points.T, strict=True)
    )
    return Preflight(len(points), cloud.num_dropped, table, scale, ground, share, tuple(hints))


def intensity_scale(points: NDArray[np.float32]) -> str:
    """Return the scale of the fourth column: "0..1", "0..255", "0..65535" or "none"."""
    if points.shape[1] < 4 or np.ptp(points[:, 3]) == 0:
        return "none"
    top = float(points[:, 3].max())
    for limit, name in ((1.0, "0..1"), (255.0, "0..255")):
        if top <= limit:
            return name
    return "0..65535"


def ground_level(points: NDArray[np.float32]) -> float | None:
    """Estimate the height of the ground around the sensor, m.

    The commonest height among the lower half of the points 3 to 25 m away.

    Returns:
        None where fewer than 100 points lie there.
    """
    distance = np.hypot(points[:, 0], points[:, 1])
    heights = points[(distance > 3.0) & (distance < 25.0), 2]
    if len(heights) < 100:
        return None
    lower = heights[heights <= np.median(heights)]
    low, high = np.percentile(lower, (1, 100))
    bins = max(int(np.ceil((high - low) / 0.1)), 1)
    if bins > 100_000:  # no heights in metres
        return None
    counts, edges = np.histogram(lower, bins=bins, range=(low, max(high, low + 1e-3)))
    fullest = int(counts.argmax())
    near = lower[(lower >= edges[fullest] - 0.1) & (lower <= edges[fullest + 1] + 0.1)]
    return float(np.median(near))


def _range_hints(points: NDArray[np.float32], share: float) -> list[str]:
    if share >= _SMALL_SHARE:
        return []
    return [
        f"{_percent(share)} of the points lie in the model's range; the cloud spans "
        f"{_span(points)}: are the units metres and the sensor at the origin?"
    ]


def _intensity_hints(scale: str) -> list[str]:
    """Compare with nuScenes, 0..255."""
    if scale == "0..1":
        return [
            "intensity lies in 0..1; models trained on nuScenes expect 0..255: "
            "--intensity-scale 255 (KITTI and Waymo models: leave it)"
        ]
    if scale == "0..255":
        return []
    if scale == "0..65535":
        return ["intensity exceeds 255; to bring 16 bits to 0..255: --intensity-scale 0.00389"]
    return ["no intensity: the model was trained with one, expect lower scores"]


def _ground_hints(ground: float | None) -> list[str]:
    if ground is None:
        return []
    low, high = _USUAL_HEIGHT
    if low <= -ground <= high:
        return []
    return [
        f"the ground seems to lie at z = {ground:.2f} m, while car sensors stand "
        f"{low:g} to {high:g} m above it; shift the cloud: --z-offset {-1.84 - ground:.2f}"
    ]


def _span(points: NDArray[np.float32]) -> str:
    low, high = points[:, :3].min(axis=0), points[:, :3].max(axis=0)
    return ", ".join(
        f"{name} {a:g}..{b:g}"
        for name, a, b in zip("xyz", low.tolist(), high.tolist(), strict=True)
    )


def _percent(share: float) -> str:
    percent = 100.0 * share
    return f"{percent:.1f} %" if percent >= 0.1 or percent == 0.0 else f"{percent:.2g} %"
