"""A spinning LiDAR with 32 beams on a moving vehicle."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception3d.simulation.casting import Caster, Hits, Moment
from perception3d.simulation.mesh import Material, Mesh, box
from perception3d.simulation.rig import LIDAR, SWEEP_END, SWEEP_PERIOD, sensor_poses
from perception3d.simulation.semantics import EGO
from perception3d.simulation.world import World

Floats = NDArray[np.floating[Any]]

NUM_BEAMS = 32
NUM_STEPS = 1084
ELEVATION = np.deg2rad(np.linspace(-30.67, 10.67, NUM_BEAMS))
"""Elevation of each beam, lowest first as in nuScenes' ring index, rad."""
MAX_RANGE = 90.0
MIN_RANGE = 0.4
RANGE_NOISE = 0.02
_ECHO = 3.0
"""Strength of an echo; sets how far away dark and slanted surfaces are still seen."""


@dataclass(frozen=True)
class Sweep:
    """One turn of the LiDAR, as the sensor saw it, moved to the pose at the end of the turn.

    Attributes:
        points: (P, 5) float32 x, y, z in m in the LiDAR frame, intensity 0..255, ring 0..31.
        label: (P,) uint8 nuScenes-lidarseg category index.
        owner: (P,) int32 actor, -1 scenery and ego vehicle.
    """

    points: Floats
    label: NDArray[np.uint8]
    owner: NDArray[np.int32]


def _ego_roof() -> Mesh:
    """Return the part of the ego vehicle that the LiDAR sees, in the ego frame: the roof.

    It lies within 1 m of the sensor in x and y, where readers of nuScenes remove own returns.
    """
    roof = Material((0.8, 0.8, 0.8), 0.4)
    return box((0.94, 0, 1.40), (1.5, 1.1, 0.08), roof).labelled(EGO)


class Lidar:
    """Scans a world.

    Args:
        world: the scene.
        caster: ray tree of the same world.
    """

    def __init__(self, world: World, caster: Caster) -> None:
        self._world, self._caster = world, caster
        step = np.arange(NUM_STEPS)
        # Ego yaw of each firing; the LiDAR turns clockwise.
        self._yaw = SWEEP_END - 2 * np.pi * (step + 0.5) / NUM_STEPS
        in_ego = np.stack([np.cos(self._yaw), np.sin(self._yaw), np.zeros(NUM_STEPS)], axis=-1)
        level = in_ego @ LIDAR.rotation
        level[:, 2] = 0
        self._level = level / np.linalg.norm(level, axis=1, keepdims=True)
        self._time = SWEEP_PERIOD * ((step + 0.5) / NUM_STEPS - 1)
        self._own = self._own_ranges()

    def _own_ranges(self) -> Floats:
        """Return the (NUM_STEPS, NUM_BEAMS) distance to the ego vehicle, inf beside it."""
        mesh = _ego_roof()
        shifted = mesh.vertices - LIDAR.position
        rays = np.zeros((NUM_STEPS, NUM_BEAMS, 6), dtype=np.float32)
        rays[..., 3:] = np.cos(ELEVATION)[:, None] * self._level[:, None]
        rays[..., 5] = np.sin(ELEVATION)
        still = Mesh.of(shifted @ LIDAR.rotation, mesh.faces, Material((0, 0, 0), 0.4))
        return Caster.bare(still, rays.reshape(-1, 6)).reshape(NUM_STEPS, NUM_BEAMS)

    def scan(self, times: Floats, rng: np.random.Generator) -> list[Sweep]:
        """Return one sweep for each end time (T,) in s, cast together.

        Every ray leaves from where the sensor is when it fires.  A mover is shown where it is when
        the beam passes its middle; over its own width it stands still.
        """
        count = len(times)
        position, rotation = self._poses(times)
        level = np.einsum("tij,tj->ti", rotation, np.tile(self._level, (count, 1)))
        up = rotation[:, :, 2]
        rays = np.empty((count * NUM_STEPS, NUM_BEAMS, 6), dtype=np.float32)
        rays[..., :3] = position[:, None]
        _spread(level, up, rays[..., 3:])
        rays = rays.reshape(-1, 6)
        hits = self._caster.still(rays)
        self._caster.add_movers(hits, rays, self._moments(times))
        return self._receive(times, position, level, up, hits, rays[:, 3:], rng)

    def _poses(self, times: Floats) -> tuple[Floats, Floats]:
        """Return the pose of the sensor at every firing of turns that end at `times` (T,).

        It is interpolated linearly between five times per turn: off by less than 0.1 mm.
        """
        knots = SWEEP_PERIOD * np.linspace(-1, 0, 5)
        position, rotation = sensor_poses(
            LIDAR, *self._world.ego_poses((times[:, None] + knots).reshape(-1))
        )
        before = np.minimum((self._time / SWEEP_PERIOD + 1) * 4, 3.999).astype(np.int64)
        share = (self._time - knots[before]) / (SWEEP_PERIOD / 4)
        before = (5 * np.arange(len(times))[:, None] + before).reshape(-1)
        share = np.tile(share, len(times))
        return (
            position[before] + share[:, None] * (position[before + 1] - position[before]),
            rotation[before] + share[:, None, None] * (rotation[before + 1] - rotation[before]),
        )

    def _moments(self, times: Floats) -> list[Moment]:
        """Return where movers are when the beam passes them, and the rays that may meet them."""
        world, count = self._world, len(times)
        sweep = np.tile(np.arange(count), len(world.movers))
        mover = np.repeat(world.movers, count)
        center, turn = sensor_poses(LIDAR, *world.ego_poses(times))
        place, _, _ = world.tracks.poses(mover, times[sweep])
        seen = np.einsum("kji,kj->ki", turn[sweep], place - center[sweep])
        size = np.array([world.actors[number].size for number in mover]).reshape(-1, 3)
        row, first, last = _spans(seen, np.hypot(size[:, 0], size[:, 1]) / 2 + 0.4)
        when = times[sweep[row]] + self._time[(first + last) // 2]
        position, rotation, _ = world.tracks.poses(mover[row], when)
        low, high = _beams(seen[row], size[row])
        # The vehicle moves by less than 2 m during a turn.
        away = np.linalg.norm(seen, axis=1) - np.linalg.norm(size, axis=1) - 2.0
        nearest = away[row].tolist()
        rays = np.arange(count * NUM_STEPS * NUM_BEAMS).reshape(count, NUM_STEPS, NUM_BEAMS)
        spans = np.stack([mover[row], sweep[row], first, last + 1, low, high], axis=1).tolist()
        return [
            Moment(number, position[at], rotation[at], rays[turn, i:j, k:m].ravel(), nearest[at])
            for at, (number, turn, i, j, k, m) in enumerate(spans)
        ]

    def _receive(
        self,
        times: Floats,
        position: Floats,
        level: Floats,
        up: Floats,
        hits: Hits,
        direction: Floats,
        rng: np.random.Generator,
    ) -> list[Sweep]:
        """Turn hits into sweeps: noise, drop-out, intensity, motion compensation."""
        count = len(times)
        surfaces = self._caster.surfaces
        distance, reflectance = hits.distance, surfaces.reflectance[hits.surface]
        label, owner = surfaces.label[hits.surface], surfaces.owner[hits.surface]
        cosine = np.abs(np.einsum("ni,ni->n", hits.normal, direction))
        own = np.tile(self._own.reshape(-1), count)
        hidden = own < distance
        distance = np.where(hidden, own, distance)
        reflectance[hidden], cosine[hidden], label[hidden], owner[hidden] = 0.4, 0.7, EGO, -1
        with np.errstate(over="ignore", invalid="ignore"):
            signal = reflectance * (0.08 + 0.92 * cosine)
            strength = _ECHO * signal * np.square(MAX_RANGE / np.maximum(distance, 8.0))
            kept = rng.random(len(distance), dtype=np.float32) < 0.985 * -np.expm1(-strength)
        kept &= (distance > MIN_RANGE) & (distance < MAX_RANGE)
        rows = np.flatnonzero(kept)
        reach = distance[rows] + RANGE_NOISE * rng.standard_normal(len(rows), dtype=np.float32)
        speckle = 1 + 0.12 * rng.standard_normal(len(rows), dtype=np.float32)
        intensity = np.clip(np.rint(255 * np.sqrt(signal[rows] * 0.25) * speckle), 0, 255)
        sweep = rows // (NUM_STEPS * NUM_BEAMS)
        points = np.empty((len(rows), 5), dtype=np.float32)
        points[:, 3] = intensity
        points[:, 4] = rows % NUM_BEAMS
        points[:, :3] = self._compensated(times, position, level, up, rows, reach)
        ends = np.searchsorted(sweep, np.arange(count + 1))
        return [
            Sweep(points[first:last], label[rows[first:last]], owner[rows[first:last]])
            for first, last in pairwise(ends.tolist())
        ]

    def _compensated(
        self,
        times: Floats,
        position: Floats,
        level: Floats,
        up: Floats,
        rows: NDArray[np.int64],
        reach: Floats,
    ) -> Floats:
        """Return (P, 3) float32 points in the LiDAR frame at the end of their sweep."""
        end_position, end_rotation = sensor_poses(LIDAR, *self._world.ego_poses(times))
        turned = np.repeat(end_rotation, NUM_STEPS, axis=0)
        origin = np.einsum(
            "tji,tj->ti", turned, position - np.repeat(end_position, NUM_STEPS, axis=0)
        ).astype(np.float32)
        level_there = np.einsum("tji,tj->ti", turned, level).astype(np.float32)
        up_there = np.einsum("tji,tj->ti", turned, up).astype(np.float32)
        step, beam = np.divmod(rows, NUM_BEAMS)
        flat = (reach * np.cos(ELEVATION).astype(np.float32)[beam])[:, None]
        rise = (reach * np.sin(ELEVATION).astype(np.float32)[beam])[:, None]
        return np.asarray(origin[step] + flat * level_there[step] + rise * up_there[step])


LIDAR_YAW = float(np.arctan2(LIDAR.rotation[1, 0], LIDAR.rotation[0, 0]))
"""Ego yaw of the LiDAR's x axis, rad."""


def _spans(seen: Floats, radius: Floats) -> tuple[NDArray[np.int64], ...]:
    """Return the steps of a turn that may meet movers.

    Args:
        seen: (K, 3) places of movers in the LiDAR frame, m.
        radius: (K,) of circles around them, m.

    Returns:
        Row of `seen`, first and last step (S,) each; spans are not empty.  A mover across the
        border of two turns has two spans, since it is met there at different times.
    """
    away = np.hypot(seen[:, 0], seen[:, 1])
    yaw = np.arctan2(seen[:, 1], seen[:, 0]) + LIDAR_YAW
    middle = np.mod(SWEEP_END - yaw, 2 * np.pi) / (2 * np.pi) * NUM_STEPS
    ratio = np.minimum(radius / np.maximum(away, 1e-6), 1.0)
    reach = np.where(ratio < 1, np.arcsin(ratio) / (2 * np.pi) * NUM_STEPS, NUM_STEPS / 2) + 2
    shift = np.array([-NUM_STEPS, 0, NUM_STEPS])
    first = np.maximum((middle - reach).astype(np.int64)[:, None] + shift, 0)
    last = np.minimum((middle + reach).astype(np.int64)[:, None] + shift, NUM_STEPS - 1)
    row, turn = np.nonzero((first <= last) & (away < MAX_RANGE + radius)[:, None])
    return row, first[row, turn], last[row, turn]


def _beams(seen: Floats, size: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first beam and the one after the last that may meet movers (K, 3)."""
    radius = np.hypot(size[:, 0], size[:, 1]) / 2
    away = np.hypot(seen[:, 0], seen[:, 1])
    nearest, farthest = np.maximum(away - radius, 0.3), away + radius
    # Tilt of sensor and ground: a generous 4 % of the distance.
    bottom = seen[:, 2] - 0.3 - 0.04 * away
    top = seen[:, 2] + size[:, 2] + 0.3 + 0.04 * away
    low = np.minimum(bottom / nearest, bottom / farthest)
    high = np.maximum(top / nearest, top / farthest)
    slope = np.tan(ELEVATION)
    return np.searchsorted(slope, low), np.searchsorted(slope, high, side="right")


def _spread(level: Floats, up: Floats, out: Floats) -> None:
    """Write the directions (T, NUM_BEAMS, 3) of all beams of T firings into `out`."""
    flat = np.cos(ELEVATION).astype(np.float32)[None, :, None]
    rise = np.sin(ELEVATION).astype(np.float32)[None, :, None]
    np.multiply(flat, level.astype(np.float32)[:, None], out=out)
    out += rise * up.astype(np.float32)[:, None]
