"""What a 3D renderer is given: points and lines with colours, and where they are seen from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception3d.visualization.colors import BACKGROUND, Color


@dataclass(frozen=True)
class SceneGeometry:
    """Things to draw.

    Attributes:
        points: (P, 3) float, m.
        point_colors: (P, 3) uint8 RGB.
        lines: (L, 2, 3) float, m.
        line_colors: (L, 3) uint8 RGB.
        point_size: pixels.
        line_width: pixels.
        background: RGB.
    """

    points: NDArray[np.floating[Any]]
    point_colors: NDArray[np.uint8]
    lines: NDArray[np.floating[Any]]
    line_colors: NDArray[np.uint8]
    point_size: float = 2.0
    line_width: float = 2.0
    background: Color = BACKGROUND


@dataclass(frozen=True)
class Viewpoint:
    """A camera in the LiDAR frame; +z is up in the picture.

    Attributes:
        eye: where it stands, m.
        target: what it looks at, m; not straight above or below the eye.
        width: of the picture, pixels.
        height: of the picture, pixels.
        field_of_view: vertical, degrees.
        near: nearer things are not seen, m.
        far: farther things are not seen, m.
    """

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    width: int = 1600
    height: int = 900
    field_of_view: float = 50.0
    near: float = 0.5
    far: float = 500.0

    @staticmethod
    def behind(forward: str = "y", width: int = 1600, height: int = 900) -> "Viewpoint":
        """Return a view from behind and above the sensor, along its forward axis "x" or "y"."""
        if forward not in ("x", "y"):
            raise ValueError(f"Viewpoint.behind: forward must be 'x' or 'y', got {forward!r}")
        if forward == "y":
            return Viewpoint((0.0, -30.0, 18.0), (0.0, 11.0, -1.5), width, height)
        return Viewpoint((-30.0, 0.0, 18.0), (11.0, 0.0, -1.5), width, height)

    @property
    def focal_length(self) -> float:
        """Pixels."""
        return self.height / 2 / float(np.tan(np.radians(self.field_of_view) / 2))

    def world_to_camera(self) -> NDArray[np.float64]:
        """Return (4, 4); camera axes x right, y down, z forward."""
        eye = np.asarray(self.eye, dtype=np.float64)
        forward = np.asarray(self.target, dtype=np.float64) - eye
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        matrix = np.eye(4)
        matrix[:3, :3] = np.stack([right, np.cross(forward, right), forward])
        matrix[:3, 3] = -matrix[:3, :3] @ eye
        return matrix

    def intrinsics(self) -> NDArray[np.float64]:
        """Return (3, 3), pixels; integer coordinates are pixel corners."""
        focal = self.focal_length
        return np.array([[focal, 0, self.width / 2], [0, focal, self.height / 2], [0, 0, 1.0]])
