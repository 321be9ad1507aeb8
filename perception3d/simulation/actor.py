"""Things with a track: what they are, how they look, where they are at any time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception3d.simulation.mesh import Mesh
from perception3d.simulation.road import Reals, Road

Floats = NDArray[np.float64]

STANDING_SPEED = 0.2
"""Below this speed in m/s an actor counts as standing."""


@dataclass(frozen=True)
class Path:
    """A straight line in road coordinates, run through at a speed that comes and goes.

    Attributes:
        s, d: place at time 0, m.
        direction: heading and direction of travel against growing s, rad.
        speed: mean speed, m/s; 0 for things that stay.
        ripple: amplitude of the speed, at most `speed`, m/s.
        period: period of the ripple, s.
        phase: phase of the ripple, rad.
    """

    s: float
    d: float
    direction: float
    speed: float = 0.0
    ripple: float = 0.0
    period: float = 10.0
    phase: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether the place changes over time."""
        return self.speed > 0

    def travelled(self, time: Reals) -> Floats:
        """Return the way in m at times in s, negative before time 0."""
        rate = 2 * np.pi / self.period
        when = np.asarray(time, dtype=np.float64)
        wave = np.sin(rate * when + self.phase) - np.sin(self.phase)
        return np.asarray(self.speed * when + self.ripple / rate * wave)

    def speed_at(self, time: float) -> float:
        """Return the speed at a time, m/s."""
        rate = 2 * np.pi / self.period
        return float(self.speed + self.ripple * np.cos(rate * time + self.phase))

    def places(self, time: Reals) -> tuple[Floats, Floats]:
        """Return s and d at times (T,) in s."""
        way = self.travelled(time)
        return self.s + way * np.cos(self.direction), self.d + way * np.sin(self.direction)

    def poses(self, road: Road, time: Reals) -> tuple[Floats, Floats, Floats]:
        """Return positions (T, 3), rotations (T, 3, 3) and yaw (T,) at times (T,) in s."""
        s, d = self.places(np.atleast_1d(time))
        return road.frames(s, d, self.direction)


class Tracks:
    """Many paths at once.

    Args:
        road: geometry.
        paths: N paths.
    """

    def __init__(self, road: Road, paths: list[Path]) -> None:
        self._road = road
        fields = ("s", "d", "direction", "speed", "ripple", "period", "phase")
        columns = [[getattr(path, field) for path in paths] for field in fields]
        self._columns = np.array(columns, dtype=np.float64).reshape(len(fields), len(paths))

    def poses(self, paths: NDArray[np.int64], time: Reals) -> tuple[Floats, Floats, Floats]:
        """Return where paths are at times.

        Args:
            paths: (K,) numbers of paths.
            time: (K,) or one for all, s.

        Returns:
            Positions (K, 3) m, rotations (K, 3, 3), yaw (K,) rad in the local frame.
        """
        s, d, direction, speed, ripple, period, phase = self._columns[:, paths]
        rate = 2 * np.pi / period
        way = speed * time + ripple / rate * (np.sin(rate * time + phase) - np.sin(phase))
        return self._road.frames(
            s + way * np.cos(direction), d + way * np.sin(direction), direction
        )


@dataclass(frozen=True)
class Actor:
    """One annotated thing.

    Attributes:
        category: nuScenes category name, e.g. "vehicle.car".
        size: length, width, height, m.
        mesh: shape that fills the size exactly: x forward, standing on z = 0.
        path: where it is.
        parked: stands for longer, with no driver.
        rider: somebody sits on the cycle.
    """

    category: str
    size: tuple[float, float, float]
    mesh: Mesh
    path: Path
    parked: bool = False
    rider: bool = False

    def attribute(self, time: float) -> str:
        """Return the nuScenes attribute at a time in s, "" for barriers and cones."""
        moving = self.path.speed_at(time) > STANDING_SPEED
        if self.category.startswith("human"):
            return "pedestrian.moving" if moving else "pedestrian.standing"
        if self.category in ("vehicle.bicycle", "vehicle.motorcycle"):
            return "cycle.with_rider" if self.rider else "cycle.without_rider"
        if self.category.startswith("vehicle"):
            if moving:
                return "vehicle.moving"
            return "vehicle.parked" if self.parked else "vehicle.stopped"
        return ""
