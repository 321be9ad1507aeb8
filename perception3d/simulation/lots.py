"""Plots beside the road and the things that stand on them."""

import numpy as np

from perception3d.simulation import scenery
from perception3d.simulation.actor import Path
from perception3d.simulation.catalog import draw_body
from perception3d.simulation.ground import Lot
from perception3d.simulation.populace import Populace
from perception3d.simulation.road import CROSSING_HALF_WIDTH, LOT_END, PAVEMENT_END, Road

_DECK = ("car_park", "depot", "bus_station", "construction", "plaza")
_QUARTER = np.pi / 2


def plan_lots(road: Road, start: float, end: float, rng: np.random.Generator) -> list[Lot]:
    """Cut both sides of the road into lots of 26 to 34 m that leave the side streets free.

    Every kind comes once in six lots on either side, so that each scene holds all of them.
    """
    lots = []
    gap = CROSSING_HALF_WIDTH + 1.0
    for side in (-1, 1):
        kinds: list[str] = []
        s = float(np.round(start / 2) * 2)
        while s < end:
            stop = s + float(rng.integers(13, 18) * 2)
            inside = np.sort(
                road.crossings[(road.crossings > s - gap) & (road.crossings < stop + gap)]
            )
            if len(inside):
                if inside[0] - gap - s < 18:
                    s = float(np.ceil((inside[0] + gap) / 2) * 2)
                    continue
                stop = float(np.floor((inside[0] - gap) / 2) * 2)
            if not kinds:
                deck = (*_DECK, "green" if rng.random() < 0.5 else "building")
                kinds = [deck[number] for number in rng.permutation(len(deck))]
            lots.append(Lot(s, stop, side, kinds.pop()))
            s = stop
    return lots


def furnish_lot(populace: Populace, lot: Lot) -> None:
    """Place what belongs on a lot of its kind."""
    {
        "car_park": _car_park,
        "depot": _depot,
        "bus_station": _bus_station,
        "construction": _construction,
        "plaza": _plaza,
        "green": _green,
        "building": _building,
    }[lot.kind](populace, lot)


def _facing(populace: Populace, jitter: float = 0.06) -> float:
    """Return a heading across the road, to either side, with a little disorder."""
    turn = _QUARTER if populace.rng.random() < 0.5 else -_QUARTER
    return float(turn + populace.rng.normal(0, jitter))


def _car_park(populace: Populace, lot: Lot) -> None:
    rng = populace.rng
    for row in (17.4, 27.0):
        for s in np.arange(lot.start + 2, lot.end - 1, 2.9):
            chance = rng.random()
            if chance < 0.45:
                body = draw_body("car", rng)
            elif chance < 0.55:
                body = draw_body("motorcycle", rng)
            elif chance < 0.60 and row > 20:
                body = draw_body("truck", rng)
            else:
                continue
            place = Path(s, lot.side * (row + rng.normal(0, 0.15)), _facing(populace))
            populace.add(body, place, parked=True)


def _depot(populace: Populace, lot: Lot) -> None:
    rng = populace.rng
    slant = rng.uniform(-0.5, 0.5)
    for s in np.arange(lot.start + 3.5, lot.end - 3, 4.6):
        chance = rng.random()
        if chance > 0.85:
            continue
        kind = "trailer" if chance < 0.42 else "truck" if chance < 0.75 else "construction_vehicle"
        place = Path(s, lot.side * rng.uniform(21.5, 23.5), _facing(populace) + slant)
        populace.add(draw_body(kind, rng), place, parked=True)


def _bus_station(populace: Populace, lot: Lot) -> None:
    rng = populace.rng
    middle = (lot.start + lot.end) / 2
    for row in (17.0, 22.5, 28.0):
        for s in (middle - 7.0, middle + 7.0):
            if rng.random() > 0.6:
                continue
            kind = "bus" if rng.random() < 0.75 else "trailer"
            direction = np.pi * rng.integers(2) + rng.normal(0, 0.05)
            place = Path(s + rng.normal(0, 0.5), lot.side * row, float(direction))
            populace.add(draw_body(kind, rng), place, parked=True)
    people(populace, (lot.start + 1, lot.end - 1), (14.2, 15.4), lot.side, 2)


def _construction(populace: Populace, lot: Lot) -> None:
    rng = populace.rng
    for s in np.arange(lot.start + 2, lot.end - 2, 2.7):
        if rng.random() < 0.75:
            place = Path(s, lot.side * 14.5, _facing(populace, 0.03))
            populace.add(draw_body("barrier", rng), place, margin=0.05)

    def machine() -> bool:
        kind = "construction_vehicle" if rng.random() < 0.75 else "truck"
        s, d = rng.uniform(lot.start + 4, lot.end - 4), rng.uniform(18.5, 27)
        place = Path(s, lot.side * d, rng.uniform(-np.pi, np.pi))
        return populace.add(draw_body(kind, rng), place, parked=True)

    def cone() -> bool:
        s, d = rng.uniform(lot.start + 1, lot.end - 1), rng.uniform(15.2, 20)
        place = Path(s, lot.side * d, rng.uniform(-np.pi, np.pi))
        return populace.add(draw_body("traffic_cone", rng), place)

    populace.attempt(3, machine)
    populace.attempt(4, cone)
    people(populace, (lot.start + 1, lot.end - 1), (15.2, 24), lot.side, 2, worker=True)


def _plaza(populace: Populace, lot: Lot) -> None:
    rng = populace.rng
    for kind, first, step in (("bicycle", lot.start + 3, 1.1), ("motorcycle", lot.end - 9, 1.5)):
        for number in range(5):
            if rng.random() < 0.8:
                place = Path(first + number * step, lot.side * 15.3, _facing(populace, 0.1))
                populace.add(draw_body(kind, rng), place, parked=True, margin=0.1)
    people(populace, (lot.start + 1, lot.end - 1), (15, 28), lot.side, 4)
    _trees(populace, lot, 2)


def _green(populace: Populace, lot: Lot) -> None:
    _trees(populace, lot, 6)
    rng = populace.rng
    for _ in range(3):
        s, d = rng.uniform(lot.start + 4, lot.end - 4), rng.uniform(16, 28)
        mesh = scenery.hedge(rng.uniform(3, 7), rng)
        populace.stand(mesh, s, lot.side * d, rng.uniform(-np.pi, np.pi))
    people(populace, (lot.start + 1, lot.end - 1), (15, 28), lot.side, 2)


def _building(populace: Populace, lot: Lot) -> None:
    rng = populace.rng
    _house(
        populace,
        (lot.start + 1.5, lot.end - 1.5),
        (16.0, LOT_END - 1),
        lot.side,
        rng.uniform(6, 13),
    )
    people(populace, (lot.start + 1, lot.end - 1), (14.0, 15.4), lot.side, 2)


def _trees(populace: Populace, lot: Lot, count: int) -> None:
    rng = populace.rng

    def plant() -> bool:
        s, d = rng.uniform(lot.start + 2, lot.end - 2), rng.uniform(17, 29)
        return populace.stand(scenery.tree(rng), s, lot.side * d, rng.uniform(0, 6), margin=0.6)

    populace.attempt(count, plant)


def people(
    populace: Populace,
    s_range: tuple[float, float],
    d_range: tuple[float, float],
    side: int,
    count: int,
    *,
    worker: bool = False,
) -> None:
    """Place people who stand about in a rectangle of road coordinates."""
    rng = populace.rng

    def person() -> bool:
        s, d = rng.uniform(*s_range), rng.uniform(*d_range)
        body = draw_body("pedestrian", rng, worker=worker)
        return populace.add(body, Path(s, side * d, rng.uniform(-np.pi, np.pi)), margin=0.15)

    populace.attempt(count, person)


def _house(
    populace: Populace,
    s: tuple[float, float],
    d: tuple[float, float],
    side: int,
    height: float,
) -> None:
    """Build a house; buildings come first where they stand, so its place is only reserved."""
    ends = sorted((side * d[0], side * d[1]))
    middle = Path((s[0] + s[1]) / 2, (ends[0] + ends[1]) / 2, 0.0)
    if populace.reserve(middle, (s[1] - s[0], ends[1] - ends[0])):
        mesh = scenery.building(populace.road, s, (ends[0], ends[1]), height, populace.rng)
        populace.scenery.append(mesh)


def furnish_background(populace: Populace, start: float, end: float) -> None:
    """Close the view behind the lots: houses, fences and trees, between two arc lengths."""
    rng, road = populace.rng, populace.road
    for side in (-1, 1):
        s = start
        while s < end:
            stop = s + rng.uniform(12, 24)
            ends = np.array([s - 1, (s + stop) / 2, stop + 1])
            if road.on_crossing(ends).any() or rng.random() < 0.3:
                for _ in range(2):
                    place = rng.uniform(s, stop), side * rng.uniform(33, 50)
                    if not road.on_crossing(np.array([place[0] - 2, place[0] + 2])).any():
                        populace.stand(scenery.tree(rng), *place, 0.0)
            else:
                near = LOT_END + rng.uniform(2, 7)
                depth = rng.uniform(8, 14)
                _house(populace, (s, stop - 1.5), (near, near + depth), side, rng.uniform(5, 16))
            s = stop


def furnish_kerbside(populace: Populace, start: float, end: float) -> None:
    """Place lamps and signs along the pavements and fences between lots and background."""
    rng, road = populace.rng, populace.road
    for side in (-1, 1):
        inward = -side * _QUARTER
        for s in np.arange(start + rng.uniform(0, 10), end, 24.0):
            if not road.on_crossing(np.array([s - 1, s + 1])).any():
                populace.stand(scenery.street_lamp(), s, side * 10.75, inward)
            near = s + 11.0
            if not road.on_crossing(np.array([near - 1, near + 1])).any():
                face = 0.0 if side < 0 else np.pi
                populace.stand(scenery.road_sign(rng), near, side * 10.75, face)
            if rng.random() < 0.4 and not road.on_crossing(np.linspace(s, s + 12, 9)).any():
                mesh = scenery.fence(10.0)
                populace.stand(mesh, s + 6, side * (LOT_END + 0.8), 0.0)
            if rng.random() < 0.5 and not road.on_crossing(np.array([s + 3, s + 7])).any():
                place = s + 5.0, side * (PAVEMENT_END - 0.6)
                populace.stand(scenery.tree(rng), *place, 0.0)
