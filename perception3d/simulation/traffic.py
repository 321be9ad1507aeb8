"""What moves or waits on the road: traffic, cycles, parked vehicles, road works, walkers."""

import numpy as np

from perception3d.simulation.actor import Path
from perception3d.simulation.catalog import draw_body
from perception3d.simulation.populace import Populace
from perception3d.simulation.road import CYCLE_LANE, LANES, PARKING_LANE, PAVEMENT_END

_QUARTER = np.pi / 2
_LANE_KINDS = ("car", "truck", "bus", "trailer", "motorcycle", "construction_vehicle")
_LANE_SHARES = (0.53, 0.12, 0.11, 0.06, 0.15, 0.03)


def ego_path(rng: np.random.Generator, duration: float) -> Path:
    """Return the path of the ego vehicle: one of the right-hand lanes, from s = 0 at time 0."""
    speed = float(rng.uniform(4.5, 9.0))
    return Path(
        s=0.0,
        d=-LANES[rng.integers(2)],
        direction=0.0,
        speed=speed,
        ripple=speed * float(rng.uniform(0.2, 0.7)),
        period=float(rng.uniform(8, max(9.0, duration))),
        phase=float(rng.uniform(0, 2 * np.pi)),
    )


def fill_lanes(populace: Populace, start: float, end: float, duration: float) -> None:
    """Send traffic through all four lanes, so that it lies between two arc lengths all the time.

    The vehicles of a lane speed up and slow down together and never touch.
    """
    rng = populace.rng
    for lane in LANES:
        for side in (-1, 1):
            direction = 0.0 if side < 0 else np.pi
            speed = float(rng.uniform(4.5, 10.0))
            stops = rng.random() < 0.25
            ripple = speed * (1.0 if stops else float(rng.uniform(0.1, 0.5)))
            period, phase = float(rng.uniform(10, 18)), float(rng.uniform(0, 2 * np.pi))
            way = speed * duration + 10
            s = start - (way if side < 0 else 0)
            stop = end + (way if side > 0 else 0)
            while s < stop:
                kind = str(rng.choice(_LANE_KINDS, p=_LANE_SHARES))
                offset = side * (lane + rng.normal(0, 0.12))
                path = Path(s, offset, direction, speed, ripple, period, phase)
                body = draw_body(kind, rng, rider=kind == "motorcycle")
                populace.add(body, path, margin=0.35)
                s += rng.uniform(9, 24)


def fill_cycle_lanes(populace: Populace, start: float, end: float, duration: float) -> None:
    """Let cyclists ride along both kerbs."""
    rng = populace.rng
    for side in (-1, 1):
        direction = 0.0 if side < 0 else np.pi
        s = start - (6 * duration if side < 0 else 0)
        stop = end + (6 * duration if side > 0 else 0)
        while s < stop:
            speed = float(rng.uniform(3.0, 6.0))
            path = Path(s, side * (CYCLE_LANE + rng.normal(0, 0.06)), direction, speed, 0.4)
            populace.add(draw_body("bicycle", rng, rider=True), path, margin=0.15)
            s += rng.uniform(8, 20)


def fill_parking_lanes(populace: Populace, start: float, end: float) -> None:
    """Park vehicles along both kerbs, in either direction of the lane."""
    rng, road = populace.rng, populace.road
    for side in (-1, 1):
        for s in np.arange(start, end, 6.4):
            if road.on_crossing(np.array([s - 6, s, s + 6])).any() or rng.random() > 0.45:
                continue
            chance = rng.random()
            kind = "car" if chance < 0.8 else "motorcycle" if chance < 0.9 else "truck"
            direction = (0.0 if side < 0 else np.pi) + rng.normal(0, 0.03)
            place = Path(s, side * (PARKING_LANE + rng.normal(0, 0.05)), float(direction))
            populace.add(draw_body(kind, rng), place, parked=True, margin=0.12)


def fill_side_streets(populace: Populace, start: float, end: float, duration: float) -> None:
    """Let vehicles wait at, drive up to and drive away from the main road."""
    rng = populace.rng
    crossings = populace.road.crossings
    for crossing in crossings[(crossings > start) & (crossings < end)]:
        for side in (-1, 1):
            inward = -side * _QUARTER
            # Right-hand traffic: the inward lane lies at lower s when it comes from the left.
            lane = crossing - side * 2.4
            away = PAVEMENT_END + 3.5
            for _ in range(rng.integers(1, 4)):
                kind = str(
                    rng.choice(["car", "truck", "bus", "motorcycle"], p=[0.6, 0.15, 0.1, 0.15])
                )
                body = draw_body(kind, rng, rider=kind == "motorcycle")
                place = Path(lane, side * (away + body.size[0] / 2), inward)
                populace.add(body, place)
                away += body.size[0] + rng.uniform(1.0, 2.5)
            speed = float(rng.uniform(0.3, 1.0) * 45 / max(duration, 5.0))
            body = draw_body("car", rng)
            start_d = side * rng.uniform(13, 22)
            path = Path(crossing + side * 2.4, start_d, -inward, speed, 0.3 * speed)
            populace.add(body, path)


def build_road_works(populace: Populace, start: float, end: float) -> None:
    """Close stretches of cycle and parking lane with barriers and cones, on alternating sides."""
    rng, road = populace.rng, populace.road
    side = int(rng.choice([-1, 1]))
    first = start + float(rng.uniform(0, 15))
    while first < end - 20:
        last = first + 22.0
        if road.on_crossing(np.linspace(first - 4, last + 4, 12)).any():
            first += 6.0
            continue
        side = -side
        if rng.random() < 0.7:
            place = Path(first + 11 + rng.normal(0, 1), side * 9.1, np.pi * rng.integers(2))
            populace.add(draw_body("construction_vehicle", rng), place, parked=True, margin=0.05)
        for number, share in enumerate(np.linspace(0, 1, 5)):
            for s in (first + 4 * share, last - 4 * share):
                _cone(populace, s, side * (9.7 - 2.5 * share), skip=number == 0)
        for s in np.arange(first + 6.0, last - 5.0, 2.6):
            if rng.random() < 0.8:
                turn = side * _QUARTER + rng.normal(0, 0.04)
                place = Path(s, side * 7.25, float(turn))
                populace.add(draw_body("barrier", rng), place, margin=0.02)
            else:
                _cone(populace, s, side * 7.25)
        for s in (first + 6, last - 6):
            body = draw_body("pedestrian", rng, worker=True)
            place = Path(s, side * rng.uniform(8.2, 9.7), rng.uniform(-np.pi, np.pi))
            populace.add(body, place, margin=0.1)
        first = last + 8.0


def _cone(populace: Populace, s: float, d: float, *, skip: bool = False) -> None:
    if skip and populace.rng.random() < 0.5:
        return
    turn = float(populace.rng.uniform(-np.pi, np.pi))
    populace.add(draw_body("traffic_cone", populace.rng), Path(s, d, turn), margin=0.02)


def fill_pavements(populace: Populace, start: float, end: float) -> None:
    """Let people walk and stand on the pavements, and leave a few cycles there."""
    rng, road = populace.rng, populace.road
    for side in (-1, 1):
        s = start
        while s < end:
            s += rng.uniform(3, 11)
            if road.on_crossing(np.array([s - 12, s, s + 12])).any():
                continue
            d = side * rng.uniform(11.1, 13.0)
            chance = rng.random()
            if chance < 0.62:
                speed = float(rng.uniform(0.7, 1.7))
                direction = np.pi * rng.integers(2) + rng.normal(0, 0.02)
                path = Path(s, d, float(direction), speed, 0.2 * speed, 6.0)
                populace.add(draw_body("pedestrian", rng, walking=True), path, margin=0.15)
            elif chance < 0.84:
                path = Path(s, d, rng.uniform(-np.pi, np.pi))
                populace.add(draw_body("pedestrian", rng), path, margin=0.15)
            else:
                kind = "bicycle" if chance < 0.94 else "motorcycle"
                path = Path(s, side * 13.0, float(np.pi * rng.integers(2) + rng.normal(0, 0.1)))
                populace.add(draw_body(kind, rng), path, parked=True, margin=0.15)
