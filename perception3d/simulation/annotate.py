"""Boxes of a key frame: where each actor is, how many points it has, how well cameras see it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from perception3d.simulation.casting import Caster, Moment
from perception3d.simulation.mesh import Mesh
from perception3d.simulation.rig import CAMERAS, sensor_poses
from perception3d.simulation.world import World

Floats = NDArray[np.float64]

ANNOTATION_RANGE = 80.0
"""Actors farther than this from the ego vehicle are not annotated, m."""
_PROBES = 40


@dataclass(frozen=True)
class Boxes:
    """Upright boxes around actors.

    Attributes:
        actor: (K,) actor numbers.
        center: (K, 3) m, rounded to mm.
        size: (K, 3) length, width, height, m.
        yaw: (K,) rad.
    """

    actor: NDArray[np.int64]
    center: Floats
    size: Floats
    yaw: Floats


def boxes_at(world: World, time: float) -> Boxes:
    """Return the boxes of all actors near the ego vehicle at a time, in the local frame."""
    ego = world.ego_poses(time)[0][0]
    position, _, yaw = world.tracks.poses(np.arange(len(world.actors)), time)
    near = np.flatnonzero(np.hypot(*(position - ego)[:, :2].T) < ANNOTATION_RANGE)
    size = np.array([world.actors[number].size for number in near]).reshape(-1, 3)
    center = position[near]
    center[:, 2] += size[:, 2] / 2
    return Boxes(near, center.round(3), size, yaw[near])


def count_points(
    center: Floats, axes: Floats, size: Floats, points: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Count the points inside boxes, borders included.

    Args:
        center: (K, 3) m.
        axes: (K, 3, 3), columns are the axes of each box.
        size: (K, 3) lengths along the axes, m.
        points: (P, 3) m.

    Returns:
        (K,) counts.
    """
    counts = np.zeros(len(center), dtype=np.int64)
    if not len(points) or not len(center):
        return counts
    tree = cKDTree(points[:, :2])
    reach = np.linalg.norm(size, axis=1) / 2 + 1e-3
    for row, near in enumerate(tree.query_ball_point(center[:, :2], reach)):
        inside = np.abs((points[near] - center[row]) @ axes[row]) <= size[row] / 2
        counts[row] = np.count_nonzero(inside.all(axis=1))
    return counts


def _probe(mesh: Mesh, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return places (N, 3) spread evenly over a mesh and the normals (N, 3) there."""
    corner = mesh.vertices[mesh.faces].astype(np.float64)
    cross = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    area = np.linalg.norm(cross, axis=1)
    face = rng.choice(len(area), _PROBES, p=area / area.sum())
    u, v = rng.random((2, _PROBES, 1))
    over = u + v > 1
    u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
    a, b, c = corner[face].transpose(1, 0, 2)
    return a + u * (b - a) + v * (c - a), cross[face] / area[face, None]


class VisibilityMeter:
    """Estimates which share of each actor the cameras see.

    Probes on the surface count as seen where a camera has them in its image and nothing stands
    before them; the share is taken of the probes on the side towards the ego vehicle.

    Args:
        world: the scene.
        caster: ray tree of the same world.
        image_size: width, height of the images, px.
        rng: source of the places of the probes.
    """

    def __init__(
        self,
        world: World,
        caster: Caster,
        image_size: tuple[int, int],
        rng: np.random.Generator,
    ) -> None:
        self._world, self._caster, self._image_size = world, caster, image_size
        probes = [_probe(actor.mesh, rng) for actor in world.actors]
        self._place = np.stack([place for place, _ in probes])
        self._normal = np.stack([normal for _, normal in probes])

    def shares(self, actors: NDArray[np.int64], time: float) -> Floats:
        """Return the visible share 0..1 of actors (K,) at a time in s."""
        world = self._world
        if not len(actors):
            return np.zeros(0)
        position, rotation, _ = world.tracks.poses(actors, time)
        place = np.einsum("kij,knj->kni", rotation, self._place[actors]) + position[:, None]
        normal = np.einsum("kij,knj->kni", rotation, self._normal[actors])
        ego, turn = world.ego_poses(time)
        middle = ego[0] + turn[0] @ (0.9, 0, 1.5)
        facing = np.einsum("kni,kni->kn", normal, middle - place) > 0
        seen = np.zeros_like(facing)
        rays, target = self._rays(place, facing, ego, turn)
        hits = self._caster.still(rays)
        row, probe, distance = target
        self._caster.add_movers(hits, rays, self._moments(actors, position, rotation, rays))
        own = self._caster.surfaces.owner[hits.surface] == actors[row]
        clear = (hits.distance > distance - 0.1) | (own & np.isfinite(hits.distance))
        seen[row[clear], probe[clear]] = True
        return np.asarray(seen.sum(axis=1) / np.maximum(facing.sum(axis=1), 1))

    def _moments(
        self,
        actors: NDArray[np.int64],
        position: Floats,
        rotation: Floats,
        rays: NDArray[np.float32],
    ) -> list[Moment]:
        """Return the movers among the actors, each with the rays that pass close by."""
        moments = []
        for row, number in enumerate(actors.tolist()):
            actor = self._world.actors[number]
            if not actor.path.moves:
                continue
            half = np.asarray(actor.size) / 2
            middle = position[row] + rotation[row, :, 2] * half[2]
            shift = (middle - rays[:, :3]).astype(np.float32)
            along = np.einsum("ni,ni->n", shift, rays[:, 3:])
            missed = np.einsum("ni,ni->n", shift, shift) - along * along
            near = np.flatnonzero((missed < half @ half) & (along > -np.linalg.norm(half)))
            moments.append(Moment(number, position[row], rotation[row], near, 0.0))
        return moments

    def _rays(
        self, place: Floats, facing: NDArray[np.bool_], ego: Floats, turn: Floats
    ) -> tuple[NDArray[np.float32], tuple[NDArray[np.int64], NDArray[np.int64], Floats]]:
        """Return rays (N, 6) from cameras to the probes in their images, and actor row, probe
        number and distance of each ray."""
        width, height = self._image_size
        rays, rows, probes, distances = [], [], [], []
        for camera in CAMERAS:
            center, axes = sensor_poses(camera, ego, turn)
            shift = place - center[0]
            x, y, z = np.moveaxis(shift @ axes[0], -1, 0)
            matrix = camera.intrinsics(width, height)
            depth = np.maximum(z, 0.1)
            u = matrix[0, 0] * x / depth + matrix[0, 2]
            v = matrix[1, 1] * y / depth + matrix[1, 2]
            inside = (z > 0.1) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
            row, probe = np.nonzero(inside & facing)
            away = shift[row, probe]
            distance = np.linalg.norm(away, axis=1)
            origin = np.broadcast_to(center[0], away.shape)
            rays.append(np.concatenate([origin, away / distance[:, None]], axis=1))
            rows.append(row)
            probes.append(probe)
            distances.append(distance)
        return (
            np.concatenate(rays).astype(np.float32),
            (np.concatenate(rows), np.concatenate(probes), np.concatenate(distances)),
        )


def visibility_token(share: float) -> str:
    """Return the nuScenes visibility token "1".."4" of a visible share."""
    return str(1 + int(np.searchsorted([0.4, 0.6, 0.8], share, side="right")))
