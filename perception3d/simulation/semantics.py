"""Names and numbers of nuScenes: categories, attributes, label ids of points and voxels."""

import numpy as np
from numpy.typing import NDArray

CATEGORIES: tuple[tuple[str, str], ...] = (
    ("noise", "Returns that belong to nothing."),
    ("animal", "Animals."),
    ("human.pedestrian.adult", "Grown-up on foot."),
    ("human.pedestrian.child", "Child on foot."),
    ("human.pedestrian.construction_worker", "Person at work on a construction site."),
    ("human.pedestrian.personal_mobility", "Person on a small powered vehicle, e.g. a scooter."),
    ("human.pedestrian.police_officer", "Police officer."),
    ("human.pedestrian.stroller", "Pram."),
    ("human.pedestrian.wheelchair", "Person in a wheelchair."),
    ("movable_object.barrier", "Temporary road barrier."),
    ("movable_object.debris", "Thing on the road that is too large to be driven over."),
    ("movable_object.pushable_pullable", "Thing that is pushed or pulled by hand."),
    ("movable_object.trafficcone", "Traffic cone."),
    ("static_object.bicycle_rack", "Stand for bicycles with the bicycles in it."),
    ("vehicle.bicycle", "Bicycle with its rider, if any."),
    ("vehicle.bus.bendy", "Section of a bendy bus."),
    ("vehicle.bus.rigid", "Rigid bus."),
    ("vehicle.car", "Car."),
    ("vehicle.construction", "Construction machine."),
    ("vehicle.emergency.ambulance", "Ambulance."),
    ("vehicle.emergency.police", "Police vehicle."),
    ("vehicle.motorcycle", "Motorcycle or scooter with its rider, if any."),
    ("vehicle.trailer", "Trailer behind a truck or standing alone."),
    ("vehicle.truck", "Truck or pick-up."),
    ("flat.driveable_surface", "Surface that a car may drive on."),
    ("flat.other", "Other flat surface."),
    ("flat.sidewalk", "Pavement for people on foot."),
    ("flat.terrain", "Grass, soil, sand."),
    ("static.manmade", "Buildings, walls, poles, signs."),
    ("static.other", "Other things that stay where they are."),
    ("static.vegetation", "Trees, hedges, bushes."),
    ("vehicle.ego", "The vehicle that carries the sensors."),
)
"""(name, description) of each category; the position is its nuScenes-lidarseg index."""

LABEL_OF_CATEGORY: dict[str, int] = {name: index for index, (name, _) in enumerate(CATEGORIES)}

DRIVEABLE = LABEL_OF_CATEGORY["flat.driveable_surface"]
FLAT_OTHER = LABEL_OF_CATEGORY["flat.other"]
SIDEWALK = LABEL_OF_CATEGORY["flat.sidewalk"]
TERRAIN = LABEL_OF_CATEGORY["flat.terrain"]
MANMADE = LABEL_OF_CATEGORY["static.manmade"]
VEGETATION = LABEL_OF_CATEGORY["static.vegetation"]
EGO = LABEL_OF_CATEGORY["vehicle.ego"]

ATTRIBUTES: tuple[tuple[str, str], ...] = (
    ("vehicle.moving", "The vehicle moves."),
    ("vehicle.stopped", "The vehicle stands in traffic and will move on."),
    ("vehicle.parked", "The vehicle stands for longer."),
    ("cycle.with_rider", "Somebody rides the cycle."),
    ("cycle.without_rider", "Nobody rides the cycle."),
    ("pedestrian.sitting_lying_down", "The person sits or lies."),
    ("pedestrian.standing", "The person stands."),
    ("pedestrian.moving", "The person moves."),
)

VISIBILITIES: tuple[tuple[str, str], ...] = (
    ("v0-40", "0 to 40 % of the object is seen by the cameras"),
    ("v40-60", "40 to 60 % of the object is seen by the cameras"),
    ("v60-80", "60 to 80 % of the object is seen by the cameras"),
    ("v80-100", "80 to 100 % of the object is seen by the cameras"),
)

_OCCUPANCY_NAMES = (
    "movable_object.barrier",
    "vehicle.bicycle",
    "vehicle.bus",
    "vehicle.car",
    "vehicle.construction",
    "vehicle.motorcycle",
    "human.pedestrian",
    "movable_object.trafficcone",
    "vehicle.trailer",
    "vehicle.truck",
    "flat.driveable_surface",
    "flat.other",
    "flat.sidewalk",
    "flat.terrain",
    "static.manmade",
    "static.vegetation",
)
# The challenge has no class for these (nutonomy/nuscenes-devkit: eval/lidarseg/utils.py).
_NOT_PEDESTRIANS = ("personal_mobility", "stroller", "wheelchair")


def occupancy_ids() -> NDArray[np.uint8]:
    """Return (32,) nuScenes-lidarseg challenge classes 0..16 by category index; 0 is noise."""
    ids = np.zeros(len(CATEGORIES), dtype=np.uint8)
    for index, (name, _) in enumerate(CATEGORIES):
        for number, prefix in enumerate(_OCCUPANCY_NAMES, start=1):
            if name.startswith(prefix) and not name.endswith(_NOT_PEDESTRIANS):
                ids[index] = number
    return ids
