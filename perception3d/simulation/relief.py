"""The ground as pictures seen from above: its height and its label."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception3d.simulation.ground import ground_labels
from perception3d.simulation.road import GROUND_END
from perception3d.simulation.world import World

CELL = 0.3
"""Size of a pixel, m."""
_SAMPLE = 0.22


class Relief:
    """Height and label of the ground by x and y in the local frame.

    Args:
        world: the scene.

    Attributes:
        corner: (2,) x, y of the outer corner of the first pixel, m.
        height: (rows, columns) float32 m, NaN where there is no ground; rows along y.
        label: (rows, columns) uint8 nuScenes-lidarseg category index.
    """

    def __init__(self, world: World) -> None:
        road = world.road
        s = np.arange(*world.extent, _SAMPLE)[:, None]
        d = np.arange(-GROUND_END, GROUND_END, _SAMPLE)[None]
        x, y = road.plan(s, d)
        self.corner = np.array([x.min(), y.min()])
        columns, rows = (int(np.ptp(part) / CELL) + 1 for part in (x, y))
        self.height = np.full((rows, columns), np.nan, dtype=np.float32)
        self.label = np.zeros((rows, columns), dtype=np.uint8)
        pixel, _ = self.pixels(x, y)
        self.height.ravel()[pixel] = road.height(s, d)
        self.label.ravel()[pixel] = ground_labels(road, world.lots, s[:, 0], d[0])

    def pixels(
        self, x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Return the flat pixel of places x, y in m, any shape, and whether there is one.

        The pixel is 0 where there is none.
        """
        rows, columns = self.height.shape
        column = ((x - self.corner[0]) * (1 / CELL)).astype(np.int32)
        row = ((y - self.corner[1]) * (1 / CELL)).astype(np.int32)
        inside = (x >= self.corner[0]) & (column < columns) & (y >= self.corner[1]) & (row < rows)
        return np.where(inside, row * columns + column, 0), inside

    def middles(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return x (columns,) and y (rows,) of the middles of the pixels, m."""
        rows, columns = self.height.shape
        x = self.corner[0] + CELL * (np.arange(columns) + 0.5)
        y = self.corner[1] + CELL * (np.arange(rows) + 0.5)
        return x.astype(np.float32), y.astype(np.float32)
