"""Colour of what a camera sees: sun, sky light, shadows, surface patterns, haze."""

import numpy as np
from numpy.typing import NDArray

from perception3d.simulation.casting import Caster, Hits
from perception3d.simulation.mesh import FACADE, FOLIAGE, GRAIN
from perception3d.simulation.relief import Relief
from perception3d.simulation.shadow import ShadowMap
from perception3d.simulation.world import World

Reals = NDArray[np.float32]

_HORIZON = np.array([0.62, 0.70, 0.78], dtype=np.float32)
_ZENITH = np.array([0.17, 0.34, 0.66], dtype=np.float32)
_HAZE_DISTANCE = 260.0
_SUNLIGHT = np.float32(0.62)
_NOISE_SIZE = 512  # a power of two: places are folded by masking bits


class Shader:
    """Turns hits into colours.

    Args:
        world: the scene.
        caster: ray tree of the same world.
        relief: ground of the same world.
        rng: source of the sun's place and of surface noise.
    """

    def __init__(
        self, world: World, caster: Caster, relief: Relief, rng: np.random.Generator
    ) -> None:
        azimuth, elevation = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(28, 60))
        level = np.cos(elevation)
        self._sun = np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)])
        self._shadows = ShadowMap(world, caster, relief, self._sun)
        self._surfaces, self._num_still = caster.surfaces, caster.num_still
        still = world.still.normals()
        self._ambient = _ambient(still)
        self._sunlight = _SUNLIGHT * np.maximum(still @ self._sun, 0)
        self._wall_direction = np.stack([-still[:, 1], still[:, 0]], axis=1)
        self._level = (still[:, 2] > 0.9) & (world.still.owner < 0)
        noise = rng.normal(0, 1, (_NOISE_SIZE, _NOISE_SIZE))
        coarse = np.repeat(np.repeat(rng.normal(0, 1, (64, 64)), 8, axis=0), 8, axis=1)
        self._noise = (0.6 * noise + 0.8 * coarse).astype(np.float32).ravel()

    def shadows(self, time: float) -> NDArray[np.uint8]:
        """Return the shadow picture at a time in s."""
        return self._shadows.at(time)

    def paint(self, hits: Hits, rays: Reals, shadows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (N, 3) uint8 red, green, blue.

        Args:
            hits: what rays meet.
            rays: (N, 6) float32.
            shadows: picture from `shadows`.
        """
        # What is not there lies in the haze, far away, and is painted over by the sky.
        distance = np.minimum(hits.distance, np.float32(1e4))
        place = [rays[:, axis] + distance * rays[:, axis + 3] for axis in range(3)]
        light = self._light(hits, place, shadows)
        self._draw_patterns(light, hits.surface, place, 1 / (1 + distance * np.float32(1 / 25)))
        clear = np.exp(distance * np.float32(-1 / _HAZE_DISTANCE))
        picture = self._surfaces.color[hits.surface]
        picture *= (light * clear)[:, None]
        picture += (1 - clear)[:, None] * _HORIZON
        missed = np.flatnonzero(np.isinf(hits.distance))
        picture[missed] = _sky(rays[missed, 5])
        np.clip(picture, 0, 1, out=picture)
        # Screens show about the square root of the light.
        np.sqrt(picture, out=picture)
        picture *= np.float32(255)
        return picture.astype(np.uint8)

    def _light(self, hits: Hits, place: list[Reals], shadows: NDArray[np.uint8]) -> Reals:
        """Return the light (N,) that falls on hits at places x, y, z (N,)."""
        moves = np.flatnonzero(hits.surface >= self._num_still)
        known = hits.surface.copy()
        known[moves] = 0
        sunlight, level = self._sunlight[known], self._level[known]
        light = self._ambient[known]
        normal = hits.normal[moves]
        sunlight[moves] = _SUNLIGHT * np.maximum(normal @ self._sun, 0)
        light[moves] = _ambient(normal)
        level[moves] = False
        ground = np.flatnonzero(level)
        dark = self._shadows.look_up(shadows, place[0][ground], place[1][ground])
        sunlight[ground] *= 1 - np.float32(0.85) * dark
        light += sunlight
        return light

    def _draw_patterns(
        self, light: Reals, surface: NDArray[np.int64], place: list[Reals], strength: Reals
    ) -> None:
        """Darken and brighten light (N,) on patterned surfaces, in place; `strength` is (N,)."""
        pattern = self._surfaces.pattern[surface]
        for kind, scale, depth in ((GRAIN, 10.0, 0.07), (FOLIAGE, 5.0, 0.22)):
            rows = np.flatnonzero(pattern == kind)
            x, y, z = ((part[rows] * np.float32(scale)).astype(np.int32) for part in place)
            z &= -4  # Slopes shall not shimmer.
            cell = ((x + z) & (_NOISE_SIZE - 1)) * _NOISE_SIZE + ((y + z) & (_NOISE_SIZE - 1))
            light[rows] *= 1 + np.float32(depth) * self._noise[cell] * strength[rows]
        rows = np.flatnonzero(pattern == FACADE)
        wall = self._wall_direction[surface[rows]]
        along = place[0][rows] * wall[:, 0] + place[1][rows] * wall[:, 1]
        across = np.mod(along * np.float32(1 / 2.6), 1)
        upward = np.mod(place[2][rows] * np.float32(1 / 3.1), 1)
        window = (across > 0.28) & (across < 0.75) & (upward > 0.35) & (upward < 0.82)
        light[rows[window]] *= 0.35


def _ambient(normal: Reals) -> Reals:
    """Return the light of the sky on faces with normals (N, 3)."""
    return np.asarray(np.float32(0.30) + np.float32(0.10) * normal[:, 2])


def _sky(rise: Reals) -> Reals:
    """Return (N, 3) sky colours of rays that climb by `rise` (N,) per m."""
    share = np.sqrt(np.clip(rise, 0, 1))[:, None]
    return np.asarray(_HORIZON + share * (_ZENITH - _HORIZON))
