"""One scene: road, ground, scenery, actors, the way of the ego vehicle."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception3d.simulation import lots, traffic
from perception3d.simulation.actor import Actor, Path, Tracks
from perception3d.simulation.ground import Lot, ground_mesh, markings
from perception3d.simulation.mesh import Mesh
from perception3d.simulation.populace import Populace
from perception3d.simulation.road import Reals, Road
from perception3d.simulation.semantics import LABEL_OF_CATEGORY

Floats = NDArray[np.float64]

EGO_SIZE = (4.1, 1.75)
_ACTIVE = 72.0
_VISIBLE = 60.0


@dataclass(frozen=True)
class World:
    """Everything that rays can hit, and where it is.

    Attributes:
        road: geometry in the local frame.
        ego: path of the ego vehicle.
        actors: all actors; `owner` numbers of the meshes are positions in this list.
        still: scenery and standing actors, in the local frame.
        movers: (M,) numbers of the actors that move.
        tracks: paths of all actors.
        lots: plots beside the road.
        extent: lowest and highest s with ground, m.
        duration: time of the last key frame, s.
    """

    road: Road
    ego: Path
    actors: list[Actor]
    still: Mesh
    movers: NDArray[np.int64]
    tracks: Tracks
    lots: list[Lot]
    extent: tuple[float, float]
    duration: float

    def ego_poses(self, time: Reals) -> tuple[Floats, Floats]:
        """Return position (T, 3) m and rotation (T, 3, 3) of the ego frame at times (T,) s.

        The ego frame lies on the ground under the middle of the rear axle: x forward, y left.
        """
        position, rotation, _ = self.ego.poses(self.road, time)
        return position, rotation


def _standing_meshes(road: Road, actors: list[Actor]) -> list[Mesh]:
    meshes = []
    for number, actor in enumerate(actors):
        if actor.path.moves:
            continue
        position, rotation, _ = actor.path.poses(road, 0.0)
        mesh = actor.mesh.labelled(LABEL_OF_CATEGORY[actor.category], number)
        meshes.append(mesh.moved(rotation[0], position[0]))
    return meshes


def build_world(rng: np.random.Generator, duration: float) -> World:
    """Make up a scene.

    Args:
        rng: source of chance; the same state gives the same scene.
        duration: length in s; times run from -0.6 s to this.
    """
    ego = traffic.ego_path(rng, duration)
    travelled = float(ego.travelled(duration))
    first, last = -_ACTIVE, travelled + _ACTIVE
    reach = 11 * duration + 120
    road = Road(first - reach, last + reach, rng)
    times = np.append(np.arange(-0.6, duration, 0.25), duration)
    populace = Populace(road, times, rng)
    # The rear axle is the origin of the ego frame; its body reaches further forward.
    populace.reserve(Path(ego.s + 1.3, *_rest(ego)), EGO_SIZE)
    plots = lots.plan_lots(road, first - 10, last + 10, rng)
    for lot in plots:
        lots.furnish_lot(populace, lot)
    lots.furnish_background(populace, first - 45, last + 45)
    lots.furnish_kerbside(populace, first, last)
    traffic.build_road_works(populace, first, last)
    traffic.fill_parking_lanes(populace, first, last)
    traffic.fill_side_streets(populace, first, last, duration)
    traffic.fill_lanes(populace, first, last, duration)
    traffic.fill_cycle_lanes(populace, first, last, duration)
    traffic.fill_pavements(populace, first, last)
    extent = (float(first - _VISIBLE), float(last + _VISIBLE))
    still = Mesh.join(
        [
            ground_mesh(road, plots, *extent),
            markings(road, *extent),
            *populace.scenery,
            *_standing_meshes(road, populace.actors),
        ]
    )
    paths = [actor.path for actor in populace.actors]
    movers = np.flatnonzero([path.moves for path in paths])
    return World(
        road, ego, populace.actors, still, movers, Tracks(road, paths), plots, extent, duration
    )


def _rest(path: Path) -> tuple[float, float, float, float, float, float]:
    """Return the fields of a path after `s`."""
    return path.d, path.direction, path.speed, path.ripple, path.period, path.phase
