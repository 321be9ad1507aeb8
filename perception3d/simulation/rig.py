"""The sensors on the ego vehicle: where they are, how they look, when they fire.

Ego frame: x forward, y left, z up, on the ground under the rear axle.  LiDAR frame: x right,
y forward, z up.  Camera frame: x right, y down, z forward.  Values are round numbers close to those
of nuScenes vehicles.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SWEEP_PERIOD = 0.05
"""Time of one turn of the LiDAR, s."""
KEY_FRAME_PERIOD = 0.5
"""Time between key frames, s."""
SWEEP_END = np.deg2rad(105.0)
"""Ego yaw at which a turn of the LiDAR begins and ends, rad; it turns clockwise seen from above."""


@dataclass(frozen=True)
class Mount:
    """A sensor frame in the ego frame.

    Attributes:
        channel: nuScenes channel name.
        position: (3,) m.
        rotation: (3, 3), columns are the sensor axes.
    """

    channel: str
    position: Floats
    rotation: Floats


@dataclass(frozen=True)
class CameraMount(Mount):
    """A camera.

    Attributes:
        focal: focal length in px of an image 1600 px wide.
        yaw: viewing direction in the ego frame, rad.
    """

    focal: float
    yaw: float

    def lag(self) -> float:
        """Return how long before the end of the turn the LiDAR looks along the camera, s."""
        return float(np.mod(self.yaw - SWEEP_END, 2 * np.pi) / (2 * np.pi) * SWEEP_PERIOD)

    def intrinsics(self, width: int, height: int) -> Floats:
        """Return the (3, 3) camera matrix of an image.

        The image is the full 16:9 view scaled to `width` px, cut at its top to `height` px.
        """
        scale = width / 1600
        center_y = 450 * scale - (900 * scale - height)
        return np.array(
            [[self.focal * scale, 0, width / 2], [0, self.focal * scale, center_y], [0, 0, 1.0]]
        )


def _turned(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Floats:
    cy, sy, cp, sp, cr, sr = (
        function(angle) for angle in (yaw, pitch, roll) for function in (np.cos, np.sin)
    )
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    return np.asarray(about_z @ about_y @ about_x)


_OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""Camera axes in a frame that looks along x."""

LIDAR = Mount("LIDAR_TOP", np.array([0.94, 0.0, 1.84]), _turned(np.deg2rad(-89.9), 0.012, -0.006))


def _camera(
    channel: str, degrees: float, position: tuple[float, float, float], focal: float, pitch: float
) -> CameraMount:
    yaw = float(np.deg2rad(degrees))
    return CameraMount(channel, np.array(position), _turned(yaw, pitch) @ _OPTICAL, focal, yaw)


CAMERAS = (
    _camera("CAM_FRONT", 0.3, (1.70, 0.02, 1.51), 1262.0, 0.006),
    _camera("CAM_FRONT_RIGHT", -55.6, (1.55, -0.49, 1.50), 1262.0, 0.011),
    _camera("CAM_FRONT_LEFT", 55.2, (1.52, 0.49, 1.51), 1262.0, 0.009),
    _camera("CAM_BACK", 180.2, (0.03, 0.00, 1.58), 810.0, 0.010),
    _camera("CAM_BACK_LEFT", 108.6, (1.04, 0.48, 1.59), 1258.0, 0.012),
    _camera("CAM_BACK_RIGHT", -110.2, (1.01, -0.48, 1.56), 1258.0, 0.008),
)


def sensor_poses(mount: Mount, position: Floats, rotation: Floats) -> tuple[Floats, Floats]:
    """Return position (T, 3) and rotation (T, 3, 3) of a sensor from those of the ego frame."""
    return position + rotation @ mount.position, rotation @ mount.rotation
