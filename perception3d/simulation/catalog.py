"""What kinds of actors there are: category, size distribution and shape of each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from perception3d.simulation import street_shapes, vehicle_shapes
from perception3d.simulation.mesh import Mesh
from perception3d.simulation.vehicle_shapes import Size


@dataclass(frozen=True)
class _SizeRange:
    """Normal distribution of length, width, height in m, cut at two standard deviations."""

    mean: Size
    deviation: Size

    def draw(self, rng: np.random.Generator) -> Size:
        spread = np.clip(rng.standard_normal(3), -2, 2)
        size = np.asarray(self.mean) + spread * np.asarray(self.deviation)
        return float(size[0].round(3)), float(size[1].round(3)), float(size[2].round(3))


# Means close to those of nuScenes; deviations are about a third smaller for the largest kinds.
_SIZES = {
    "car": _SizeRange((4.62, 1.95, 1.72), (0.32, 0.09, 0.14)),
    "truck": _SizeRange((7.80, 2.58, 3.20), (0.80, 0.12, 0.28)),
    "pickup": _SizeRange((5.50, 2.06, 1.92), (0.25, 0.07, 0.07)),
    "bus": _SizeRange((11.0, 2.90, 3.45), (0.60, 0.07, 0.14)),
    "trailer": _SizeRange((12.0, 2.85, 3.90), (0.80, 0.12, 0.14)),
    "construction_vehicle": _SizeRange((6.40, 2.75, 3.15), (0.50, 0.20, 0.20)),
    "barrier": _SizeRange((0.50, 2.45, 0.98), (0.05, 0.15, 0.06)),
    "motorcycle": _SizeRange((2.10, 0.80, 1.30), (0.12, 0.06, 0.06)),
    "motorcycle_rider": _SizeRange((2.10, 0.80, 1.66), (0.12, 0.06, 0.07)),
    "bicycle": _SizeRange((1.72, 0.60, 1.10), (0.08, 0.05, 0.05)),
    "bicycle_rider": _SizeRange((1.72, 0.62, 1.72), (0.08, 0.05, 0.07)),
    "pedestrian": _SizeRange((0.70, 0.68, 1.76), (0.08, 0.05, 0.09)),
    "pedestrian_walking": _SizeRange((0.85, 0.68, 1.76), (0.08, 0.05, 0.09)),
    "traffic_cone": _SizeRange((0.42, 0.42, 0.98), (0.04, 0.04, 0.13)),
}

_CATEGORIES = {
    "car": "vehicle.car",
    "truck": "vehicle.truck",
    "bus": "vehicle.bus.rigid",
    "trailer": "vehicle.trailer",
    "construction_vehicle": "vehicle.construction",
    "barrier": "movable_object.barrier",
    "motorcycle": "vehicle.motorcycle",
    "bicycle": "vehicle.bicycle",
    "pedestrian": "human.pedestrian.adult",
    "traffic_cone": "movable_object.trafficcone",
}

_SHAPES = {
    "car": vehicle_shapes.car,
    "truck": vehicle_shapes.truck,
    "bus": vehicle_shapes.bus,
    "trailer": vehicle_shapes.trailer,
    "construction_vehicle": vehicle_shapes.construction_vehicle,
    "barrier": street_shapes.barrier,
    "traffic_cone": street_shapes.traffic_cone,
}

KINDS = tuple(_CATEGORIES)
"""The ten kinds; each is a detection class of nuScenes."""


@dataclass(frozen=True)
class Body:
    """An actor without a place.

    Attributes:
        category: nuScenes category name.
        size: length, width, height, m.
        shape: makes the mesh that fills the size; called once the body has a place.
        rider: somebody sits on the cycle.
    """

    category: str
    size: Size
    shape: Callable[[], Mesh]
    rider: bool = False


def draw_body(
    kind: str,
    rng: np.random.Generator,
    *,
    rider: bool = False,
    walking: bool = False,
    worker: bool = False,
) -> Body:
    """Draw size and shape of an actor of one of KINDS.

    Args:
        kind: one of KINDS.
        rng: source of chance.
        rider: motorcycle or bicycle: somebody rides it.
        walking: pedestrian: legs and arms apart.
        worker: pedestrian: construction worker.
    """
    category = _CATEGORIES[kind]
    if kind == "pedestrian":
        child = not worker and rng.random() < 0.1
        size = _SIZES["pedestrian_walking" if walking else "pedestrian"].draw(rng)
        if child:
            size = (0.8 * size[0], 0.8 * size[1], 0.72 * size[2])
        shape = partial(street_shapes.person, size, rng, walking=walking, worker=worker)
        role = "construction_worker" if worker else "child" if child else "adult"
        return Body(f"human.pedestrian.{role}", size, shape)
    if kind in ("motorcycle", "bicycle"):
        size = _SIZES[f"{kind}_rider" if rider else kind].draw(rng)
        make = street_shapes.motorcycle if kind == "motorcycle" else street_shapes.bicycle
        return Body(category, size, partial(make, size, rng, rider=rider), rider)
    variant = "pickup" if kind == "truck" and rng.random() < 0.25 else kind
    size = _SIZES[variant].draw(rng)
    return Body(category, size, partial(_SHAPES[kind], size, rng))
