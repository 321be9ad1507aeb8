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
_HALVES = 2


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
        when = (times[:, None] + self._time).reshape(-1)
        position, rotation = sensor_poses(LIDAR, *self._world.ego_poses(when))
        level = np.einsum("tij,tj->ti", rotation, np.tile(self._level, (count, 1)))
        up = rotation[:, :, 2]
        rays = np.empty((count * NUM_STEPS, NUM_BEAMS, 6), dtype=np.float32)
        rays[..., :3] = position[:, None]
        _spread(level, up, rays[..., 3:])
        rays = rays.reshape(-1, 6)
        hits = self._caster.still(rays)
        moments, rows, layers = self._moments(times)
        self._caster.add_movers(hits, rays, moments, rows, layers)
        return self._receive(times, position, level, up, hits, rays[:, 3:], rng)

    def _moments(self, times: Floats) -> tuple[list[Moment], NDArray[np.int64], NDArray[np.int64]]:
        """Return where movers are when the beam passes them, and the rays that may meet them."""
        world = self._world
        center, turn = sensor_poses(LIDAR, *world.ego_poses(times))
        may_meet = np.zeros((len(times), NUM_STEPS, NUM_BEAMS), dtype=bool)
        moments = []
        for number in world.movers:
            actor = world.actors[number]
            radius = float(np.hypot(actor.size[0], actor.size[1])) / 2 + 0.5
            place, _, _ = actor.path.poses(world.road, times)
            seen = np.einsum("tji,tj->ti", turn, place - center)
            away = np.hypot(seen[:, 0], seen[:, 1])
            near = np.flatnonzero(away < MAX_RANGE + radius)
            if not len(near):
                continue
            spans = self._spans(seen[near], away[near], radius)
            for row, half, first, last in spans:
                sweep = int(near[row])
                middle = (first + last) // 2
                low = (seen[sweep, 2] - 0.7) / max(away[sweep] - radius, 0.3)
                high = (seen[sweep, 2] + actor.size[2] + 0.7) / max(away[sweep] - radius, 0.3)
                beams = np.searchsorted(np.tan(ELEVATION), [min(low, -0.05), high])
                may_meet[sweep, first : last + 1, max(beams[0] - 1, 0) : beams[1] + 1] = True
                moments.append((number, sweep * _HALVES + half, times[sweep] + self._time[middle]))
        rows = np.flatnonzero(may_meet)
        turn_of_row, rest = np.divmod(rows, NUM_STEPS * NUM_BEAMS)
        layers = turn_of_row * _HALVES + (rest // NUM_BEAMS >= NUM_STEPS // _HALVES)
        return self._pose(moments), rows, layers

    def _spans(self, seen: Floats, away: Floats, radius: float) -> list[tuple[int, int, int, int]]:
        """Return (row, half of the turn, first step, last step) of the steps that may meet a mover.

        Args:
            seen: (T, 3) its place in the LiDAR frame.
            away: (T,) its distance, m.
            radius: of a circle around it, m.
        """
        yaw = np.arctan2(seen[:, 1], seen[:, 0]) + LIDAR_YAW
        middle = np.mod(SWEEP_END - yaw, 2 * np.pi) / (2 * np.pi) * NUM_STEPS
        ratio = np.minimum(radius / np.maximum(away, 1e-6), 1.0)
        reach = np.where(ratio < 1, np.arcsin(ratio) / (2 * np.pi) * NUM_STEPS, NUM_STEPS / 2) + 2
        spans = []
        border = NUM_STEPS // _HALVES
        for row, (center, width) in enumerate(zip(middle, reach, strict=True)):
            for turn in (-NUM_STEPS, 0, NUM_STEPS):
                for half in range(_HALVES):
                    first = max(int(center - width) + turn, half * border)
                    last = min(int(center + width) + turn, (half + 1) * border - 1)
                    if first <= last:
                        spans.append((row, half, first, last))
        return spans

    def _pose(self, moments: list[tuple[int, int, float]]) -> list[Moment]:
        """Return the poses of (mover, layer, time)."""
        world = self._world
        posed: list[Moment] = []
        by_mover: dict[int, list[tuple[int, float]]] = {}
        for mover, layer, time in moments:
            by_mover.setdefault(mover, []).append((layer, time))
        for mover, shown in by_mover.items():
            times = np.array([time for _, time in shown])
            position, rotation, _ = world.actors[mover].path.poses(world.road, times)
            posed += [
                Moment(mover, layer, position[row], rotation[row])
                for row, (layer, _) in enumerate(shown)
            ]
        return posed

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


def _spread(level: Floats, up: Floats, out: Floats) -> None:
    """Write the directions (T, NUM_BEAMS, 3) of all beams of T firings into `out`."""
    flat = np.cos(ELEVATION).astype(np.float32)[None, :, None]
    rise = np.sin(ELEVATION).astype(np.float32)[None, :, None]
    np.multiply(flat, level.astype(np.float32)[:, None], out=out)
    out += rise * up.astype(np.float32)[:, None]
