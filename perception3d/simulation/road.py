"""The road: a curved, hilly centre line, and everything measured along (s) and across (d) it.

s is the arc length of the centre line in m, d the distance to its left in m.  Traffic keeps to
the right, so the direction of growing s drives at negative d.  The local frame is x, y, z in m with
z up; its origin is the centre line at s = 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Reals = float | Floats

LANES = (1.8, 5.4)
"""Distance of the lane centres from the centre line, m."""
CYCLE_LANE = 7.55
PARKING_LANE = 9.05
KERB = 10.2
PAVEMENT_END = 13.6
LOT_END = 31.0
GROUND_END = 76.0
KERB_HEIGHT = 0.13
CROSSING_HALF_WIDTH = 5.0
_STEP = 0.5


@dataclass(frozen=True)
class Wave:
    """A sum of sines over s: amplitude (k,), wavelength in m (k,), phase in rad (k,)."""

    amplitude: Floats
    wavelength: Floats
    phase: Floats

    def __call__(self, s: Reals) -> Floats:
        """Return the value at s, any shape."""
        angle = np.asarray(s)[..., None] * (2 * np.pi / self.wavelength) + self.phase
        return np.asarray(np.sin(angle) @ self.amplitude)

    def slope(self, s: Reals) -> Floats:
        """Return the derivative at s, any shape."""
        rate = 2 * np.pi / self.wavelength
        angle = np.asarray(s)[..., None] * rate + self.phase
        return np.asarray(np.cos(angle) @ (self.amplitude * rate))


def _cross(a: Floats, b: Floats) -> Floats:
    """Return the cross product of (N, 3) and (N, 3), cheaper than numpy's for few rows."""
    ax, ay, az = a.T
    bx, by, bz = b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


class Road:
    """Geometry of one road between two arc lengths.

    Args:
        start: lowest s, m.
        end: highest s, m.
        rng: source of curvature, gradient and bank.

    Attributes:
        crossings: (C,) s of the side streets, which run along d.
    """

    def __init__(self, start: float, end: float, rng: np.random.Generator) -> None:
        self.start, self.end = start, end
        phase = rng.uniform(0, 2 * np.pi, (4, 2))
        self._curvature = Wave(rng.uniform(0.0006, 0.0032, 2), np.array([170.0, 310.0]), phase[0])
        # Amplitudes such that each sine adds at most 1.6 % gradient.
        length = np.array([95.0, 210.0])
        self._centre_height = Wave(
            rng.uniform(0.3, 1.0, 2) * 0.016 * length / 6.3, length, phase[1]
        )
        self._bank = Wave(rng.uniform(0.003, 0.012, 2), np.array([130.0, 240.0]), phase[2])
        self._hill = Wave(rng.uniform(0.01, 0.06, 2), np.array([80.0, 150.0]), phase[3])
        self._table(rng.uniform(0, 2 * np.pi))
        first = rng.uniform(15, 40)
        self.crossings = np.concatenate(
            [np.arange(first, end, 85.0), np.arange(first - 85.0, start, -85.0)]
        )

    def _table(self, heading: float) -> None:
        """Integrate curvature to heading and position, with s = 0 at the origin."""
        s = np.arange(self.start - 10, self.end + 10 + _STEP, _STEP)
        middle = (s[1:] + s[:-1]) / 2
        turn = np.concatenate([[0.0], np.cumsum(self._curvature(middle) * _STEP)])
        turn += heading - np.interp(0.0, s, turn)
        between = (turn[1:] + turn[:-1]) / 2
        x = np.concatenate([[0.0], np.cumsum(np.cos(between) * _STEP)])
        y = np.concatenate([[0.0], np.cumsum(np.sin(between) * _STEP)])
        self._s, self._heading = s, turn
        self._x, self._y = x - np.interp(0.0, s, x), y - np.interp(0.0, s, y)

    def heading(self, s: Reals) -> Floats:
        """Return the direction of growing s in the local frame, rad."""
        return np.asarray(np.interp(s, self._s, self._heading))

    def on_crossing(self, s: Reals) -> NDArray[np.bool_]:
        """Return whether s lies on a side street."""
        distance = np.abs(np.asarray(s)[..., None] - self.crossings)
        return np.asarray(distance.min(axis=-1, initial=np.inf) <= CROSSING_HALF_WIDTH)

    def plan(self, s: Reals, d: Reals) -> tuple[Floats, Floats]:
        """Return x, y of the points (s, d), any shape."""
        heading = self.heading(s)
        x = np.interp(s, self._s, self._x) - np.sin(heading) * d
        y = np.interp(s, self._s, self._y) + np.cos(heading) * d
        return x, y

    def surface(self, s: Reals, d: Reals) -> Floats:
        """Return the height of the ground without kerbs, m."""
        away = np.abs(d)
        crown = -0.02 * np.minimum(away, KERB)
        lot = np.clip(away - PAVEMENT_END, 0, LOT_END - PAVEMENT_END)
        hill = np.clip(away - LOT_END, 0, None)
        bank = self._bank(s) * np.clip(d, -LOT_END, LOT_END)
        return np.asarray(
            self._centre_height(s) + bank + crown + 0.012 * lot + (0.05 + self._hill(s)) * hill
        )

    def height(self, s: Reals, d: Reals) -> Floats:
        """Return the height of the ground, kerbs included, m."""
        raised = (np.abs(d) > KERB) & ~self.on_crossing(s)
        return np.asarray(self.surface(s, d) + KERB_HEIGHT * raised)

    def gradient(self, s: Reals, d: Reals) -> tuple[Floats, Floats]:
        """Return the slope of the ground along s and along d, m per m, kerbs left out."""
        away, side = np.abs(d), np.sign(d)
        within = np.clip(d, -LOT_END, LOT_END)
        hill = np.clip(away - LOT_END, 0, None)
        along = self._centre_height.slope(s) + self._bank.slope(s) * within
        along = (along + self._hill.slope(s) * hill) / (1 - self._curvature(s) * d)
        fall = -0.02 * (away < KERB) + 0.012 * ((away > PAVEMENT_END) & (away < LOT_END))
        beyond = away > LOT_END
        across = self._bank(s) * ~beyond + side * (fall + (0.05 + self._hill(s)) * beyond)
        return np.asarray(along), np.asarray(across)

    def frames(self, s: Floats, d: Floats, direction: Reals) -> tuple[Floats, Floats, Floats]:
        """Return poses of things standing on the ground.

        Args:
            s, d: (N,) places, m.
            direction: (N,) or scalar heading against the direction of growing s, rad.

        Returns:
            Positions (N, 3); rotations (N, 3, 3) with x forward along the ground, z its normal;
            yaw (N,) about the vertical, rad.
        """
        x, y = self.plan(s, d)
        position = np.stack([x, y, self.height(s, d)], axis=-1)
        along, across = self.gradient(s, d)
        heading = self.heading(s)
        yaw = heading + np.asarray(direction)
        rise = along * np.cos(direction) + across * np.sin(direction)
        forward = np.stack([np.cos(yaw), np.sin(yaw), rise], axis=-1)
        forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
        tangent_s = np.stack([np.cos(heading), np.sin(heading), along], axis=-1)
        tangent_d = np.stack([-np.sin(heading), np.cos(heading), across], axis=-1)
        up = _cross(tangent_s, tangent_d)
        up /= np.linalg.norm(up, axis=-1, keepdims=True)
        left = _cross(up, forward)
        return position, np.stack([forward, left, up], axis=-1), yaw
