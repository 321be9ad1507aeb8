"""Six cameras on a moving vehicle."""

import numpy as np
from numpy.typing import NDArray

from perception3d.simulation.casting import Caster, Hits, Moment
from perception3d.simulation.relief import Relief
from perception3d.simulation.rig import CAMERAS, CameraMount, sensor_poses
from perception3d.simulation.shading import Shader
from perception3d.simulation.world import World

Floats = NDArray[np.float64]

_FARTHEST = 120.0
"""Movers farther away than this are not drawn, m."""
_NEAREST = 0.1
_UNIT = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (0.0, 2.0)])
_EDGES = np.array([(a, a + step) for step in (1, 2, 4) for a in range(8) if not a & step])


def view_directions(camera: CameraMount, width: int, height: int) -> NDArray[np.float32]:
    """Return unit directions (height * width, 3) through the pixel centres, camera frame."""
    matrix = camera.intrinsics(width, height)
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    direction = np.stack(
        [(u - matrix[0, 2]) / matrix[0, 0], (v - matrix[1, 2]) / matrix[1, 1], np.ones_like(u)],
        axis=-1,
    ).reshape(-1, 3)
    return np.asarray(
        direction / np.linalg.norm(direction, axis=1, keepdims=True), dtype=np.float32
    )


class CameraRig:
    """Takes pictures of a world.

    Args:
        world: the scene.
        caster: ray tree of the same world.
        relief: ground of the same world.
        image_size: width, height, px.
        rng: source of light and surface noise.
    """

    def __init__(
        self,
        world: World,
        caster: Caster,
        relief: Relief,
        image_size: tuple[int, int],
        rng: np.random.Generator,
    ) -> None:
        self._world, self._caster = world, caster
        self._width, self._height = image_size
        self._shader = Shader(world, caster, relief, rng)
        self._directions = [view_directions(camera, *image_size) for camera in CAMERAS]

    def shoot(self, times: list[float]) -> list[NDArray[np.uint8]]:
        """Return one picture (height, width, 3) for each of CAMERAS at its time (6,) in s."""
        shadows = self._shader.shadows(max(times))
        pictures = []
        for number, time in enumerate(times):
            colors = self._shader.paint(*self.look(number, time), shadows)
            pictures.append(colors.reshape(self._height, self._width, 3))
        return pictures

    def look(self, number: int, time: float) -> tuple[Hits, NDArray[np.float32]]:
        """Return what the pixels of a camera meet at a time in s, row by row, and their rays.

        Args:
            number: position in CAMERAS.
            time: s.
        """
        position, rotation = sensor_poses(CAMERAS[number], *self._world.ego_poses(time))
        rays = np.empty((self._height * self._width, 6), dtype=np.float32)
        rays[:, :3] = position[0]
        np.matmul(self._directions[number], rotation[0].T.astype(np.float32), out=rays[:, 3:])
        hits = self._caster.still(rays)
        moments = self._moments(CAMERAS[number], time, position, rotation)
        self._caster.add_movers(hits, rays, moments)
        return hits, rays

    def _moments(
        self, camera: CameraMount, time: float, center: Floats, axes: Floats
    ) -> list[Moment]:
        """Return where movers are, each with the pixels that may show it."""
        world = self._world
        place, turn, _ = world.tracks.poses(world.movers, time)
        size = np.array([world.actors[number].size for number in world.movers]).reshape(-1, 3)
        corners = place[:, None] + np.einsum("kij,knj->kni", turn, _UNIT * size[:, None] / 2)
        seen = (corners - center[0]) @ axes[0]
        near = np.hypot(*(place - center[0])[:, :2].T) < _FARTHEST
        pixels = np.arange(self._height * self._width).reshape(self._height, self._width)
        moments = []
        for row in np.flatnonzero(near & (seen[..., 2].max(axis=1) > _NEAREST)):
            low, high = self._outline(camera, seen[row])
            rows = pixels[low[1] : high[1], low[0] : high[0]].ravel()
            away = float(np.linalg.norm(place[row] - center[0]) - np.linalg.norm(size[row]))
            moments.append(Moment(int(world.movers[row]), place[row], turn[row], rows, away))
        return moments

    def _outline(
        self, camera: CameraMount, corners: Floats
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return first column and row and those after the last of a box in front of a camera.

        Args:
            camera: the camera.
            corners: (8, 3) corners of the box in its frame, m; some are in front of it.
        """
        start, end = corners[_EDGES[:, 0]], corners[_EDGES[:, 1]]
        crossing = (start[:, 2] > _NEAREST) != (end[:, 2] > _NEAREST)
        a, b = start[crossing], end[crossing]
        share = (_NEAREST - a[:, 2:]) / (b[:, 2:] - a[:, 2:])
        front = np.concatenate([corners[corners[:, 2] > _NEAREST], a + share * (b - a)])
        matrix = camera.intrinsics(self._width, self._height)
        pixel = front[:, :2] / front[:, 2:] * matrix[[0, 1], [0, 1]] + matrix[:2, 2]
        limit = (self._width, self._height)
        low = np.clip(np.floor(pixel.min(axis=0)) - 1, 0, limit)
        high = np.clip(np.ceil(pixel.max(axis=0)) + 1, 0, limit)
        return low.astype(np.int64), high.astype(np.int64)
