"""Shadows on the ground, as a picture seen from above."""

import cv2
import numpy as np
from numpy.typing import NDArray

from perception3d.simulation.casting import Caster
from perception3d.simulation.relief import CELL, Relief
from perception3d.simulation.world import World

Floats = NDArray[np.float64]


class ShadowMap:
    """Which parts of the ground lie in the shadow of something.

    Args:
        world: the scene.
        caster: ray tree of the same world.
        relief: ground of the same world.
        sun: (3,) unit vector towards the sun.
    """

    def __init__(self, world: World, caster: Caster, relief: Relief, sun: Floats) -> None:
        self._world, self._sun, self._relief = world, sun, relief
        x, y = relief.middles()
        row, column = np.nonzero(np.isfinite(relief.height))
        rays = np.empty((len(row), 6), dtype=np.float32)
        rays[:, 0], rays[:, 1], rays[:, 3:] = x[column], y[row], sun
        rays[:, 2] = relief.height[row, column] + np.float32(0.06)
        self._still = np.zeros(relief.height.shape, dtype=np.uint8)
        self._still[row, column] = caster.blocked(rays)

    def at(self, time: float) -> NDArray[np.uint8]:
        """Return the picture at a time in s, 1 in shadow; movers cast that of their boxes."""
        picture = self._still.copy()
        reach = -self._sun[:2] / self._sun[2]
        movers = self._world.movers
        position, rotation, _ = self._world.tracks.poses(movers, time)
        for row, number in enumerate(movers):
            actor = self._world.actors[number]
            half = np.array(actor.size[:2]) / 2
            corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half * 0.95
            foot = position[row, :2] + corner @ rotation[row, :2, :2].T
            outline = np.concatenate([foot, foot + reach * 0.9 * actor.size[2]])
            pixels = np.floor((outline - self._relief.corner) / CELL).astype(np.int32)
            cv2.fillConvexPoly(picture, cv2.convexHull(pixels), 1)
        return picture

    def look_up(
        self, picture: NDArray[np.uint8], x: NDArray[np.float32], y: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """Return the value of a picture at places x, y (N,) m; 0 outside."""
        pixel, inside = self._relief.pixels(x, y)
        return np.asarray(picture.ravel()[pixel] * inside)
