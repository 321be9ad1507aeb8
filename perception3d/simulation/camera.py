"""Six cameras on a moving vehicle."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from perception3d.simulation.casting import Caster, Hits, Moment
from perception3d.simulation.refinement import refined_picture
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


@dataclass(frozen=True)
class View:
    """A camera at one time.

    Attributes:
        camera: position in CAMERAS.
        position: (3,) m.
        rotation: (3, 3), columns are the camera axes.
        movers: per mover that may be seen its number, position, rotation, outline in px (left,
            top, right, bottom), and least distance in m.
    """

    camera: int
    position: Floats
    rotation: Floats
    movers: list[tuple[int, Floats, Floats, list[int], float]]


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
        size = np.array([world.actors[number].size for number in world.movers]).reshape(-1, 1, 3)
        self._unit_corners = _UNIT * size / 2
        self._reach = np.linalg.norm(size[:, 0], axis=1)

    def shoot(self, times: list[float]) -> list[NDArray[np.uint8]]:
        """Return one picture (height, width, 3) for each of CAMERAS at its time (6,) in s."""
        shadows = self._shader.shadows(max(times))
        return [
            refined_picture(
                self._width, self._height, partial(self._paint, self.view(number, time), shadows)
            )
            for number, time in enumerate(times)
        ]

    def _paint(
        self, view: View, shadows: NDArray[np.uint8], pixels: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        hits, rays = self.look(view, pixels)
        seen = np.where(np.isfinite(hits.distance), hits.surface, -1)
        return self._shader.paint(hits, rays, shadows), seen

    def look(self, view: View, pixels: NDArray[np.int64]) -> tuple[Hits, NDArray[np.float32]]:
        """Return what pixels (N,), numbered row by row, meet, and their rays (N, 6)."""
        rays = np.empty((len(pixels), 6), dtype=np.float32)
        rays[:, :3] = view.position
        rays[:, 3:] = self._directions[view.camera][pixels] @ view.rotation.T.astype(np.float32)
        hits = self._caster.still(rays)
        slot = np.full(self._height * self._width, -1)
        slot[pixels] = np.arange(len(pixels))
        slot = slot.reshape(self._height, self._width)
        moments = []
        for number, position, rotation, outline, nearest in view.movers:
            left, top, right, bottom = outline
            rows = slot[top:bottom, left:right].ravel()
            moments.append(Moment(number, position, rotation, rows[rows >= 0], nearest))
        self._caster.add_movers(hits, rays, moments)
        return hits, rays

    def view(self, number: int, time: float) -> View:
        """Return where a camera, numbered as in CAMERAS, and the movers before it are at a time."""
        world = self._world
        center, axes = (part[0] for part in sensor_poses(CAMERAS[number], *world.ego_poses(time)))
        place, turn, _ = world.tracks.poses(world.movers, time)
        corners = place[:, None] + np.einsum("kij,knj->kni", turn, self._unit_corners)
        seen = (corners - center) @ axes
        outlines = self._outlines(CAMERAS[number], seen)
        away = np.linalg.norm(place - center, axis=1)
        shown = (
            (away < _FARTHEST)
            & (seen[..., 2].max(axis=1) > _NEAREST)
            & (outlines[:, 2:] > outlines[:, :2]).all(axis=1)
        )
        movers = [
            (
                int(world.movers[row]),
                place[row],
                turn[row],
                outlines[row].tolist(),
                float(away[row] - self._reach[row]),
            )
            for row in np.flatnonzero(shown)
        ]
        return View(number, center, axes, movers)

    def _outlines(self, camera: CameraMount, corners: Floats) -> NDArray[np.int64]:
        """Return left, top, right, bottom (K, 4) px of boxes, last column and row not included.

        Args:
            camera: the camera.
            corners: (K, 8, 3) corners in its frame, m; those of a box beside it give nonsense.
        """
        start, end = corners[:, _EDGES[:, 0]], corners[:, _EDGES[:, 1]]
        rise = end[..., 2:] - start[..., 2:]
        share = (_NEAREST - start[..., 2:]) / np.where(np.abs(rise) < 1e-9, 1e-9, rise)
        # Where an edge passes the plane just before the camera, the box ends there.
        met = start + share * (end - start)
        place = np.concatenate([corners, met], axis=1)
        valid = np.concatenate(
            [corners[..., 2] > _NEAREST, ((share > 0) & (share < 1))[..., 0]], axis=1
        )
        matrix = camera.intrinsics(self._width, self._height)
        depth = np.where(valid, np.maximum(place[..., 2], _NEAREST), 1.0)[..., None]
        pixel = place[..., :2] / depth * matrix[[0, 1], [0, 1]] + matrix[:2, 2]
        low = np.where(valid[..., None], pixel, np.inf).min(axis=1, initial=1e6)
        high = np.where(valid[..., None], pixel, -np.inf).max(axis=1, initial=-1e6)
        limit = (self._width, self._height)
        ends = np.floor(low) - 1, np.ceil(high) + 1
        clipped = [np.clip(part, 0, limit) for part in ends]
        return np.asarray(np.concatenate(clipped, axis=1), dtype=np.int64)
