"""Semantic occupancy of a key frame in the layout of OpenOccupancy (nuScenes-Occupancy).

The voxels that a surface of the scene runs through are occupied, seen or not; the inside of solids
is free.  Where several classes share a voxel, actors go before scenery, scenery before the ground.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from perception3d.simulation.mesh import Mesh
from perception3d.simulation.relief import Relief
from perception3d.simulation.rig import LIDAR, sensor_poses
from perception3d.simulation.semantics import (
    DRIVEABLE,
    LABEL_OF_CATEGORY,
    TERRAIN,
    occupancy_ids,
)
from perception3d.simulation.world import World

Floats = NDArray[np.float64]
Reals = NDArray[np.float32]
Labels = NDArray[np.uint8]

LOWER = np.array([-51.2, -51.2, -5.0])
"""Lower corner of the grid in the LiDAR frame, x, y, z in m."""
VOXEL = 0.2
SHAPE = (512, 512, 40)
"""Voxels along x, y, z."""
_SPACING = 0.15


def surface_places(mesh: Mesh, faces: NDArray[np.int64]) -> tuple[Reals, NDArray[np.int64]]:
    """Return places (N, 3) at most about 0.15 m apart on faces (F,), and the face of each."""
    corner = mesh.vertices[mesh.faces[faces]]
    origin = corner[:, 0]
    edges = corner[:, 1] - origin, corner[:, 2] - origin
    counts = [
        np.maximum(np.ceil(np.linalg.norm(edge, axis=1) / _SPACING), 1).astype(np.int32)
        for edge in edges
    ]
    cells = counts[0] * counts[1]
    row = np.repeat(np.arange(len(faces), dtype=np.int32), cells)
    start = (np.cumsum(cells) - cells).astype(np.int32)
    number = np.arange(len(row), dtype=np.int32) - start[row]
    first, second = np.divmod(number, counts[1][row])
    u = ((first + 0.5) / counts[0][row]).astype(np.float32)
    v = ((second + 0.5) / counts[1][row]).astype(np.float32)
    # Half of the parallelogram; cells on the long edge are drawn onto it.
    inside = u + v <= 1 + 0.5 / counts[0][row] + 0.5 / counts[1][row]
    row, u, v = row[inside], u[inside], v[inside]
    over = np.maximum(u + v, 1)
    u, v = u / over, v / over
    place = origin[row] + u[:, None] * edges[0][row] + v[:, None] * edges[1][row]
    return place, faces[row]


def _thinned(place: Reals, label: Labels) -> tuple[Reals, Labels]:
    """Keep one place per label and cube of half a voxel."""
    cube = np.floor(place / (VOXEL / 2)).astype(np.int64) - np.floor(
        place.min(axis=0, initial=0) / (VOXEL / 2)
    ).astype(np.int64)
    key = ((cube[:, 0] * 20_000 + cube[:, 1]) * 20_000 + cube[:, 2]) * 32 + label
    kept = np.unique(key, return_index=True)[1]
    return place[kept], label[kept]


class Occupancy:
    """Makes the occupancy labels of a scene.

    Args:
        world: the scene.
        relief: ground of the same world.
    """

    def __init__(self, world: World, relief: Relief) -> None:
        self._world, self._relief = world, relief
        self._ids = occupancy_ids()
        still = world.still
        solid = (still.label < DRIVEABLE) | (still.label > TERRAIN)
        top = _within_reach(world, still, solid)
        self._standing = []
        for chosen in (solid & (still.owner < 0), solid & (still.owner >= 0)):
            place, face = surface_places(still, np.flatnonzero(chosen))
            below = place[:, 2] < top
            label = self._ids[still.label[face[below]]]
            self._standing.append(_thinned(place[below], label))
        self._moving = []
        for number in world.movers:
            mesh, category = world.actors[number].mesh, world.actors[number].category
            place, _ = surface_places(mesh, np.arange(len(mesh)))
            label = np.full(len(place), self._ids[LABEL_OF_CATEGORY[category]])
            self._moving.append(_thinned(place, label))
        x, y = (LOWER[axis] + VOXEL * (np.arange(SHAPE[axis]) + 0.5) for axis in (0, 1))
        self._columns = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)

    def rows(self, time: float) -> NDArray[np.int16]:
        """Return the occupied voxels at a time in s: (N, 4) z, y, x, class 1..16.

        The grid lies in the LiDAR frame at that time; see LOWER, VOXEL and SHAPE.
        """
        world = self._world
        center, axes = (part[0] for part in sensor_poses(LIDAR, *world.ego_poses(time)))
        grid = np.zeros(int(np.prod(SHAPE)), dtype=np.uint8)
        self._fill_ground(grid, center, axes)
        to_cells = (axes / VOXEL).astype(np.float32)
        shift = (-(center @ axes) - LOWER) / VOXEL
        shift = shift.astype(np.float32)
        for place, label in self._standing:
            _fill(grid, place @ to_cells + shift, label)
        position, rotation, _ = world.tracks.poses(world.movers, time)
        away = np.hypot(*(position - center)[:, :2].T)
        for row in np.flatnonzero(away < np.hypot(*LOWER[:2]) + 10):
            place, label = self._moving[row]
            moved = place @ rotation[row].T.astype(np.float32) + position[row].astype(np.float32)
            _fill(grid, moved @ to_cells + shift, label)
        taken = np.flatnonzero(grid != 0)  # comparing first is several times faster
        rest, z = np.divmod(taken, SHAPE[2])
        x, y = np.divmod(rest, SHAPE[1])
        rows = np.empty((len(taken), 4), dtype=np.int16)
        rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3] = z, y, x, grid[taken]
        return rows

    def _fill_ground(self, grid: Labels, center: Floats, axes: Floats) -> None:
        """Write the ground: per column of the grid the voxel where it meets the ground."""
        relief = self._relief
        # Start at the height of the ego vehicle's ground; tilt then moves x and y by little.
        depth = np.full(len(self._columns), -LIDAR.position[2])
        for _ in range(2):
            x, y, z = (
                self._columns @ axes[axis, :2] + depth * axes[axis, 2] + center[axis]
                for axis in range(3)
            )
            pixel, inside = relief.pixels(x, y)
            depth = depth + (np.nan_to_num(relief.height.ravel()[pixel]) - z) / axes[2, 2]
        level = np.floor((depth - LOWER[2]) / VOXEL).astype(np.int64)
        label = self._ids[relief.label.ravel()[pixel]]
        there = np.flatnonzero(inside & (label > 0) & (level >= 0) & (level < SHAPE[2]))
        grid[there * SHAPE[2] + level[there]] = label[there]


def _within_reach(world: World, mesh: Mesh, chosen: NDArray[np.bool_]) -> float:
    """Take faces out of `chosen` (F,), in place, that the grid never reaches.

    Returns:
        The height in m above which the grid never reaches.
    """
    position, _ = world.ego_poses(np.linspace(0, world.duration, 20))
    # 3 m above the LiDAR, and what a tilt of 4 % lifts at the far corner.
    top = float(position[:, 2].max() + LIDAR.position[2] + 3.0 + 0.04 * 72)
    faces = np.flatnonzero(chosen)
    corner = mesh.vertices[mesh.faces[faces]]
    middle, low = corner.mean(axis=1), corner[..., 2].min(axis=1)
    radius = np.linalg.norm(corner - middle[:, None], axis=-1).max(axis=1)
    away = cKDTree(position[:, :2]).query(middle[:, :2])[0]
    # Positions lie a few metres apart, the LiDAR 1 m ahead of them.
    chosen[faces] = (low < top) & (away < np.hypot(*LOWER[:2]) + 8 + radius)
    return top


def _fill(grid: Labels, cell: Reals, label: Labels) -> None:
    """Write labels (N,) into the flat grid at cell coordinates (N, 3); later rows win."""
    # Adding one first makes truncation the floor for all cells that count.
    x, y, z = (cell + np.float32(1)).astype(np.int32).T - 1
    inside = (x >= 0) & (x < SHAPE[0]) & (y >= 0) & (y < SHAPE[1]) & (z >= 0) & (z < SHAPE[2])
    grid[((x * SHAPE[1] + y) * SHAPE[2] + z)[inside]] = label[inside]
