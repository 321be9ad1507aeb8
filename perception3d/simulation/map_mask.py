"""The map of a scene: a picture of where one can drive and walk."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from perception3d.simulation.road import CROSSING_HALF_WIDTH, GROUND_END, PAVEMENT_END
from perception3d.simulation.world import World

RESOLUTION = 0.1
"""Size of a pixel, m; fixed by the nuScenes devkit."""
_BORDER = 10.0


def map_frame(world: World) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Return the offset (3,) m from the local to the global frame and the size in px.

    Global x and y of everything in the scene are positive, as the devkit's map masks want it.
    """
    corner = world.still.vertices[:, :2]
    low, high = corner.min(axis=0) - _BORDER, corner.max(axis=0) + _BORDER
    size = np.ceil((high - low) / RESOLUTION).astype(int)
    offset = np.array([-np.floor(low[0]), -np.floor(low[1]), 0.0])
    return offset, (int(size[0]) + 10, int(size[1]) + 10)


def draw_map(world: World, path: Path) -> None:
    """Write the mask (PNG, 0 or 255; row 0 is the largest y) of roads and pavements."""
    offset, size = map_frame(world)
    image = Image.new("L", size)
    pen = ImageDraw.Draw(image)

    def fill(s: NDArray[np.float64], d: NDArray[np.float64]) -> None:
        x, y = world.road.plan(s, d)
        column = (x + offset[0]) / RESOLUTION
        row = size[1] - (y + offset[1]) / RESOLUTION
        pen.polygon(list(zip(column.tolist(), row.tolist(), strict=True)), fill=255)

    s = np.linspace(*world.extent, 400)
    fill(np.concatenate([s, s[::-1]]), np.repeat([PAVEMENT_END, -PAVEMENT_END], len(s)))
    for crossing in world.road.crossings:
        if world.extent[0] < crossing < world.extent[1]:
            edge = crossing + CROSSING_HALF_WIDTH * np.array([-1, 1, 1, -1])
            fill(edge, GROUND_END * np.array([-1, -1, 1, 1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
