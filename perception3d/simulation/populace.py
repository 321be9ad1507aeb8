"""Collects actors and scenery, each only where nothing else stands."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perception3d.simulation.actor import Actor, Path
from perception3d.simulation.catalog import Body
from perception3d.simulation.mesh import Mesh
from perception3d.simulation.occupied import Occupied
from perception3d.simulation.road import Road


class Populace:
    """The actors and the scenery of a scene while it is being furnished.

    Args:
        road: geometry.
        times: (T,) s, times at which actors must not touch.
        rng: source of chance.

    Attributes:
        actors: actors placed so far.
        scenery: meshes placed so far, in the local frame.
    """

    def __init__(self, road: Road, times: NDArray[np.float64], rng: np.random.Generator) -> None:
        self.road, self.rng = road, rng
        self.actors: list[Actor] = []
        self.scenery: list[Mesh] = []
        self._occupied = Occupied(times)

    def reserve(self, path: Path, size: tuple[float, float], margin: float = 0.3) -> bool:
        """Take the place along a path for a rectangle; False if it is taken already."""
        times = self._occupied.times if path.moves else self._occupied.times[:1]
        position, _, yaw = path.poses(self.road, times)
        if not path.moves:
            position = np.broadcast_to(position, (len(self._occupied.times), 3))
            yaw = np.broadcast_to(yaw, len(self._occupied.times))
        if not self._occupied.free(position[:, :2], yaw, size, margin):
            return False
        self._occupied.add(position[:, :2], yaw, size)
        return True

    def add(self, body: Body, path: Path, *, parked: bool = False, margin: float = 0.3) -> bool:
        """Add an actor; False if it would come closer than `margin` m to something at any time."""
        if not self.reserve(path, body.size[:2], margin):
            return False
        self.actors.append(Actor(body.category, body.size, body.shape(), path, parked, body.rider))
        return True

    def stand(
        self, mesh: Mesh, s: float, d: float, direction: float, *, margin: float = 0.3
    ) -> bool:
        """Add scenery whose foot is at (s, d), upright; False if the place is taken."""
        low = mesh.vertices[:, 2] < 1.8
        extent = 2 * np.abs(mesh.vertices[low, :2]).max(axis=0)
        path = Path(s, d, direction)
        if not self.reserve(path, (float(extent[0]), float(extent[1])), margin):
            return False
        position, _, yaw = path.poses(self.road, 0.0)
        cos, sin = np.cos(yaw[0]), np.sin(yaw[0])
        rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        self.scenery.append(mesh.moved(rotation, position[0]))
        return True

    def attempt(self, count: int, place: Callable[[], bool], tries: int = 4) -> int:
        """Call `place` until it succeeded `count` times, at most `tries` times each.

        Returns:
            How often it succeeded.
        """
        placed = 0
        for _ in range(count * tries):
            if placed == count:
                break
            placed += place()
        return placed
