"""Low-poly vehicles on four or more wheels: x forward, y left, z up, standing on z = 0.

Every shape takes (length, width, height) in m and fills exactly that box.
"""

from collections.abc import Callable

import numpy as np

from perception3d.simulation.mesh import Material, Mesh, beam, box, cylinder, extrusion

Size = tuple[float, float, float]
Shape = Callable[[Size, np.random.Generator], Mesh]

GLASS = Material((0.10, 0.13, 0.16), 0.06)
TYRE = Material((0.05, 0.05, 0.05), 0.07)
STEEL = Material((0.35, 0.36, 0.38), 0.35)
LAMP = Material((0.95, 0.93, 0.80), 0.80)
TAIL_LAMP = Material((0.75, 0.05, 0.05), 0.85)
PLATE = Material((0.95, 0.95, 0.90), 0.95)
SAFETY_YELLOW = Material((0.90, 0.62, 0.05), 0.55)

_CAR_PAINTS = (
    (0.85, 0.85, 0.86),
    (0.55, 0.57, 0.60),
    (0.08, 0.08, 0.09),
    (0.62, 0.07, 0.07),
    (0.08, 0.17, 0.45),
    (0.25, 0.30, 0.28),
    (0.70, 0.62, 0.45),
)
_BUS_PAINTS = ((0.75, 0.12, 0.10), (0.10, 0.35, 0.60), (0.85, 0.75, 0.20), (0.15, 0.50, 0.30))
_BOX_PAINTS = ((0.88, 0.88, 0.86), (0.25, 0.35, 0.55), (0.60, 0.20, 0.15), (0.45, 0.50, 0.45))


def _paint(colors: tuple[tuple[float, float, float], ...], rng: np.random.Generator) -> Material:
    color = colors[rng.integers(len(colors))]
    return Material(color, float(0.25 + 0.4 * np.mean(color) + rng.uniform(0, 0.15)))


def _axle(x: float, width: float, radius: float, thickness: float) -> list[Mesh]:
    """Return the two wheels of an axle at x, flush with the sides."""
    return [
        cylinder(
            (x, side * width / 2, radius),
            (x, side * (width / 2 - thickness), radius),
            (radius, radius),
            TYRE,
        )
        for side in (-1, 1)
    ]


def _lamps(length: float, width: float, height: float) -> list[Mesh]:
    """Return head and tail lamps and number plates at both ends, set in by their thickness."""
    parts = []
    for end, material in ((1, LAMP), (-1, TAIL_LAMP)):
        x = end * (length / 2 - 0.02)
        for side in (-1, 1):
            parts.append(box((x, side * width * 0.36, height), (0.04, 0.3, 0.16), material))
        parts.append(box((x, 0, height * 0.72), (0.04, 0.5, 0.12), PLATE))
    return parts


def car(size: Size, rng: np.random.Generator) -> Mesh:
    """Return a hatchback, saloon, estate or van: bonnet, glazed cabin, roof, wheels, lamps."""
    length, width, height = size
    paint = _paint(_CAR_PAINTS, rng)
    belt, floor = 0.55 * height, 0.16 * height
    front, rear = length / 2, -length / 2
    bonnet, boot = ((0.27, 0.0), (0.27, 0.17), (0.24, 0.02), (0.12, 0.0))[rng.integers(4)]
    bonnet_x, boot_x = front - bonnet * length, rear + boot * length
    body = [
        (rear + 0.04, floor),
        (front - 0.04, floor),
        (front, 0.32 * height),
        (front - 0.05, 0.47 * height),
        (bonnet_x, belt),
        (rear + 0.05, belt),
        (rear, 0.40 * height),
    ]
    cabin = [
        (boot_x + 0.04, belt),
        (bonnet_x + 0.02, belt),
        (bonnet_x - 0.16 * length, 0.95 * height),
        (boot_x + 0.07 * length, 0.95 * height),
    ]
    roof = [
        (boot_x + 0.07 * length, 0.94 * height),
        (bonnet_x - 0.16 * length, 0.94 * height),
        (bonnet_x - 0.19 * length, height),
        (boot_x + 0.10 * length, height),
    ]
    radius = 0.19 * height
    parts = [
        extrusion(body, 0.97 * width, paint),
        extrusion(cabin, 0.94 * width, GLASS, inset=0.11 * width),
        extrusion(roof, 0.74 * width, paint, inset=0.03 * width),
        *_axle(0.31 * length, width, radius, 0.22),
        *_axle(-0.30 * length, width, radius, 0.22),
        *_lamps(length, width, 0.40 * height),
    ]
    return Mesh.join(parts).fitted(size)


def _cab(front: float, depth: float, width: float, height: float, paint: Material) -> list[Mesh]:
    """Return a lorry cab whose front face lies at x = front."""
    side = [
        (front - depth, 0.5),
        (front, 0.5),
        (front, 0.50 * height),
        (front - 0.25, height),
        (front - depth, height),
    ]
    pane = [
        (front - 0.12, 0.52 * height),
        (front + 0.01, 0.52 * height),
        (front - 0.19, 0.88 * height),
        (front - 0.30, 0.88 * height),
    ]
    window = box((front - 0.5 * depth, 0, 0.70 * height), (0.45 * depth, 1.005 * width, 0.5), GLASS)
    return [
        extrusion(side, width, paint),
        extrusion(pane, 0.9 * width, GLASS),
        window,
        *(box((front - 0.03, y * width * 0.38, 0.8), (0.08, 0.3, 0.2), LAMP) for y in (-1, 1)),
    ]


def _pickup(size: Size, rng: np.random.Generator) -> Mesh:
    length, width, height = size
    paint = _paint(_CAR_PAINTS, rng)
    belt, floor = 0.58 * height, 0.25 * height
    lower = [
        (-length / 2, floor),
        (length / 2, floor),
        (length / 2, 0.52 * height),
        (0.22 * length, belt),
        (-0.14 * length, belt),
        (-length / 2, 0.45 * height),
    ]
    cabin = [
        (-0.14 * length, belt),
        (0.22 * length, belt),
        (0.10 * length, height),
        (-0.12 * length, height),
    ]
    bed = [
        box(
            (-0.32 * length, y * (width / 2 - 0.04), 0.52 * height),
            (0.36 * length, 0.08, 0.4),
            paint,
        )
        for y in (-1, 1)
    ]
    gate = box((-length / 2 + 0.04, 0, 0.52 * height), (0.08, width, 0.4), paint)
    radius = 0.21 * height
    parts = [
        extrusion(lower, 0.96 * width, paint),
        extrusion(cabin, 0.92 * width, GLASS, inset=0.1),
        box((-0.01 * length, 0, height - 0.03), (0.2 * length, 0.8 * width, 0.06), paint),
        *bed,
        gate,
        *_axle(0.32 * length, width, radius, 0.25),
        *_axle(-0.32 * length, width, radius, 0.25),
        *_lamps(length, width, 0.45 * height),
    ]
    return Mesh.join(parts).fitted(size)


def truck(size: Size, rng: np.random.Generator) -> Mesh:
    """Return a lorry: cab, gap, then a box, a tipper or a flat bed; pick-ups below 2.1 m height."""
    length, width, height = size
    if height < 2.1:
        return _pickup(size, rng)
    front, depth = length / 2, min(0.3 * length, 2.1)
    cab_height = min(0.88 * height, 2.9)
    parts = _cab(front, depth, 0.95 * width, cab_height, _paint(_CAR_PAINTS, rng))
    load, middle = length - depth - 0.25, -depth / 2 - 0.125
    parts.append(box((middle, 0, 0.85), (load, 0.4 * width, 0.3), STEEL))
    paint = _paint(_BOX_PAINTS, rng)
    kind = rng.integers(3) if length > 5.5 else 0
    if kind < 2:
        parts.append(box((middle, 0, (1.0 + height) / 2), (load, width, height - 1.0), paint))
    else:
        wall = 0.5 * (height - 1.0)
        parts.append(box((middle, 0, 1.05), (load, width, 0.1), STEEL))
        parts.append(
            box((middle + load / 2, 0, (1.0 + height) / 2), (0.1, width, height - 1), paint)
        )
        for side in (-1, 1):
            y = side * (width / 2 - 0.05)
            parts.append(box((middle, y, 1.0 + wall / 2), (load, 0.1, wall), paint))
    for x in (front - 0.55 * depth, -length / 2 + 0.22 * load, -length / 2 + 0.22 * load + 1.0):
        parts += _axle(x, width, 0.48, 0.3)
    parts.append(box((-length / 2 + 0.02, 0, 0.9), (0.04, 0.9 * width, 0.16), TAIL_LAMP))
    return Mesh.join(parts).fitted(size)


def bus(size: Size, rng: np.random.Generator) -> Mesh:
    """Return a city bus: one long body, a band of windows all round, roof units, wheels."""
    length, width, height = size
    paint = _paint(_BUS_PAINTS, rng)
    side = [
        (-length / 2, 0.32),
        (length / 2 - 0.02, 0.32),
        (length / 2, 0.45 * height),
        (length / 2 - 0.28, 0.93 * height),
        (-length / 2 + 0.1, 0.93 * height),
    ]
    pane = [
        (length / 2 - 0.25, 0.42 * height),
        (length / 2 + 0.01, 0.42 * height),
        (length / 2 - 0.20, 0.86 * height),
        (length / 2 - 0.40, 0.86 * height),
    ]
    parts = [
        extrusion(side, 0.99 * width, paint),
        extrusion(pane, 0.88 * width, GLASS),
        box((-0.1, 0, 0.64 * height), (0.9 * length, width, 0.30 * height), GLASS),
        box((-length / 2 + 0.02, 0, 0.70 * height), (0.06, 0.8 * width, 0.2 * height), GLASS),
        box((0.18 * length, 0, 0.965 * height), (0.2 * length, 0.6 * width, 0.07 * height), STEEL),
        box((-0.25 * length, 0, 0.96 * height), (0.15 * length, 0.6 * width, 0.06 * height), STEEL),
        *_lamps(length, 0.95 * width, 0.75),
    ]
    for x in (length / 2 - 2.4, -length / 2 + 2.6):
        parts += _axle(x, width, 0.48, 0.3)
    return Mesh.join(parts).fitted(size)


def trailer(size: Size, rng: np.random.Generator) -> Mesh:
    """Return a semi-trailer: high body without cab, open below in front, axles at the rear."""
    length, width, height = size
    paint = _paint(_BOX_PAINTS, rng)
    deck = 0.31 * height
    parts = [box((0, 0, deck - 0.12), (length, 0.45 * width, 0.24), STEEL)]
    if rng.random() < 0.75:
        parts.append(box((0, 0, (deck + height) / 2), (length, width, height - deck), paint))
    else:
        tank = Material((0.75, 0.76, 0.78), 0.6)
        radius = (height - deck) / 2
        ends = (-length / 2, 0, deck + radius), (length / 2, 0, deck + radius)
        parts.append(cylinder(*ends, (radius, radius), tank, sides=12))
        parts.append(box((0, 0, deck), (length, width, 0.12), STEEL))
    for x in (0.10, 0.20, 0.30):
        parts += _axle(-length / 2 + x * length, width, 0.13 * height, 0.35)
    for y in (-0.6, 0.6):
        parts.append(beam((0.25 * length, y, 0), (0.25 * length, y, deck), 0.15, STEEL))
    parts.append(box((-length / 2 + 0.02, 0, 0.2 * height), (0.04, 0.9 * width, 0.15), TAIL_LAMP))
    return Mesh.join(parts).fitted(size)


def _excavator(rng: np.random.Generator) -> list[Mesh]:
    swing = rng.uniform(-0.25, 0.25)
    reach = np.array([np.cos(swing), np.sin(swing), 1.0])
    elbow, wrist = reach * (2.2, 2.2, 3.1), reach * (3.9, 3.9, 1.9)
    return [
        box((-0.9, 1.05, 0.45), (3.4, 0.6, 0.9), TYRE),
        box((-0.9, -1.05, 0.45), (3.4, 0.6, 0.9), TYRE),
        box((-0.9, 0, 0.8), (2.0, 1.6, 0.3), STEEL),
        box((-1.3, 0, 1.45), (2.6, 2.4, 1.0), SAFETY_YELLOW),
        box((-0.3, 0.65, 2.25), (1.5, 1.0, 1.5), GLASS),
        box((-0.3, 0.65, 2.95), (1.6, 1.1, 0.1), SAFETY_YELLOW),
        beam((0.1, -0.4, 1.5), elbow, 0.42, SAFETY_YELLOW),
        beam(elbow, wrist, 0.34, SAFETY_YELLOW),
        beam(wrist, reach * (3.6, 3.6, 0.5), 0.28, STEEL),
        box(reach * (3.5, 3.5, 0.35), (0.8, 1.1, 0.7), STEEL),
    ]


def _wheel_loader() -> list[Mesh]:
    parts = [
        box((-1.3, 0, 1.35), (2.8, 1.7, 0.9), SAFETY_YELLOW),
        box((-0.1, 0, 2.2), (1.4, 1.5, 1.7), GLASS),
        box((-0.1, 0, 3.1), (1.5, 1.6, 0.12), SAFETY_YELLOW),
        box((0.9, 0, 1.0), (1.2, 1.2, 0.7), SAFETY_YELLOW),
        box((3.2, 0, 0.65), (0.9, 2.8, 0.9), STEEL),
    ]
    for y in (-0.6, 0.6):
        parts.append(beam((0.9, y, 1.7), (3.0, y, 0.8), 0.3, SAFETY_YELLOW))
    for x in (-1.7, 1.3):
        parts += _axle(x, 2.6, 0.75, 0.6)
    return parts


def construction_vehicle(size: Size, rng: np.random.Generator) -> Mesh:
    """Return an excavator (tracks, turning body, arm, shovel) or a wheel loader."""
    parts = _excavator(rng) if rng.random() < 0.6 else _wheel_loader()
    return Mesh.join(parts).fitted(size)
