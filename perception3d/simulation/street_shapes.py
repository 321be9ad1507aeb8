"""Low-poly people, cycles, barriers and cones: x forward, y left, z up, standing on z = 0.

Every shape takes (length, width, height) in m and fills exactly that box.
"""

from itertools import pairwise

import numpy as np

from perception3d.simulation.mesh import (
    Material,
    Mesh,
    beam,
    box,
    cylinder,
    ellipsoid,
    extrusion,
    loft,
)
from perception3d.simulation.vehicle_shapes import LAMP, STEEL, TYRE, Size

SKIN = Material((0.75, 0.55, 0.42), 0.45)
VEST = Material((0.85, 0.90, 0.10), 0.85)
HELMET = Material((0.90, 0.75, 0.05), 0.60)
ORANGE = Material((0.95, 0.35, 0.05), 0.50)
WHITE = Material((0.92, 0.92, 0.92), 0.85)
CONCRETE = Material((0.62, 0.60, 0.57), 0.40)


def _cloth(rng: np.random.Generator) -> Material:
    color = tuple(float(value) for value in rng.uniform(0.08, 0.75, 3))
    return Material((color[0], color[1], color[2]), float(rng.uniform(0.15, 0.6)))


def person(
    size: Size, rng: np.random.Generator, *, walking: bool = False, worker: bool = False
) -> Mesh:
    """Return a person with head, trunk, two arms and two legs, apart when walking."""
    trousers = _cloth(rng)
    coat = VEST if worker else _cloth(rng)
    stride = 0.30 if walking else 0.06
    parts = []
    for side in (-1, 1):
        y = 0.11 * side
        parts.append(
            cylinder((stride * side, y, 0.0), (0, y, 0.88), (0.07, 0.10), trousers, sides=5)
        )
        hand = (-stride * side * 1.05, 0.30 * side, 0.80)
        parts.append(cylinder((0, 0.23 * side, 1.42), hand, (0.07, 0.05), coat, sides=5))
    parts.append(cylinder((0, 0, 0.84), (0, 0, 1.48), (0.18, 0.21), coat, sides=7))
    parts.append(ellipsoid((0, 0, 1.63), (0.22, 0.20, 0.27), SKIN, sides=6))
    if worker:
        parts.append(cylinder((0, 0, 1.66), (0, 0, 1.77), (0.15, 0.08), HELMET, sides=6))
    return Mesh.join(parts).fitted(size)


def _rider(
    seat: float, grip: tuple[float, float], foot: float, rng: np.random.Generator
) -> list[Mesh]:
    """Return a seated rider: hip at height `seat`, hands at (x, z), feet at height `foot`."""
    coat, trousers = _cloth(rng), _cloth(rng)
    hip = np.array([-0.18, 0.0, seat])
    chest = hip + (0.22, 0.0, 0.55)
    parts = [
        cylinder(hip, chest, (0.16, 0.20), coat, sides=6),
        ellipsoid(chest + (0.06, 0, 0.20), (0.25, 0.22, 0.28), WHITE, sides=6),
    ]
    for side in (-1, 1):
        y = np.array([0, 0.16 * side, 0])
        hand = (grip[0], 0.24 * side, grip[1])
        parts.append(cylinder(chest + y, hand, (0.06, 0.05), coat, sides=4))
        knee = (0.14, 0.17 * side, seat - 0.10)
        parts.append(cylinder(hip + 0.6 * y, knee, (0.09, 0.08), trousers, sides=4))
        parts.append(cylinder(knee, (0.02, 0.15 * side, foot), (0.08, 0.05), trousers, sides=4))
    return parts


def _wheel(x: float, radius: float, thickness: float) -> Mesh:
    half = thickness / 2
    return cylinder((x, -half, radius), (x, half, radius), (radius, radius), TYRE, sides=10)


def motorcycle(size: Size, rng: np.random.Generator, *, rider: bool = False) -> Mesh:
    """Return a motorcycle: fat wheels, engine block, tank, seat, fork, wide handlebar."""
    paint = Material((float(rng.uniform(0.1, 0.9)), 0.1, float(rng.uniform(0.05, 0.5))), 0.45)
    parts = [
        _wheel(0.72, 0.32, 0.16),
        _wheel(-0.72, 0.32, 0.18),
        box((0, 0, 0.45), (0.7, 0.34, 0.42), STEEL),
        extrusion([(-0.1, 0.62), (0.42, 0.66), (0.36, 0.95), (0.0, 0.88)], 0.32, paint),
        box((-0.42, 0, 0.80), (0.7, 0.28, 0.14), TYRE),
        box((-0.80, 0, 0.74), (0.3, 0.2, 0.12), paint),
        beam((0.72, 0, 0.32), (0.42, 0, 1.02), 0.12, STEEL),
        beam((0.40, -0.40, 1.05), (0.40, 0.40, 1.05), 0.06, STEEL),
        box((0.55, 0, 0.92), (0.14, 0.22, 0.2), LAMP),
    ]
    if rider:
        parts += _rider(0.90, (0.38, 1.08), 0.35, rng)
    return Mesh.join(parts).fitted(size)


def bicycle(size: Size, rng: np.random.Generator, *, rider: bool = False) -> Mesh:
    """Return a bicycle: thin large wheels, a frame of tubes, saddle, handlebar."""
    color = tuple(float(value) for value in rng.uniform(0.05, 0.8, 3))
    paint = Material((color[0], color[1], color[2]), 0.4)
    tubes = [
        ((0.52, 0, 0.34), (0.40, 0, 0.95)),
        ((0.42, 0, 0.80), (-0.20, 0, 0.82)),
        ((0.42, 0, 0.76), (-0.08, 0, 0.34)),
        ((-0.08, 0, 0.34), (-0.22, 0, 0.95)),
        ((-0.52, 0, 0.34), (-0.08, 0, 0.32)),
        ((-0.52, 0, 0.34), (-0.20, 0, 0.80)),
    ]
    parts = [_wheel(0.52, 0.34, 0.06), _wheel(-0.52, 0.34, 0.06)]
    parts += [beam(start, end, 0.07, paint) for start, end in tubes]
    parts += [
        box((-0.24, 0, 0.97), (0.26, 0.16, 0.07), TYRE),
        beam((0.38, -0.30, 1.0), (0.38, 0.30, 1.0), 0.06, STEEL),
    ]
    if rider:
        parts += _rider(1.02, (0.38, 1.04), 0.22, rng)
    return Mesh.join(parts).fitted(size)


def barrier(size: Size, rng: np.random.Generator) -> Mesh:
    """Return a road barrier across the heading: concrete wall with a foot, or a striped board."""
    _, width, height = size
    parts = []
    if rng.random() < 0.5:
        material = CONCRETE if rng.random() < 0.5 else ORANGE
        foot = [(-0.25, 0), (0.25, 0), (0.25, 0.10), (0.12, 0.35), (-0.12, 0.35), (-0.25, 0.10)]
        parts.append(extrusion(foot, width, material))
        parts.append(box((0, 0, (0.35 + height) / 2), (0.16, width, height - 0.35), material))
    else:
        count = 6
        for number in range(count):
            material = (ORANGE, WHITE)[number % 2]
            y = (number + 0.5) * width / count - width / 2
            parts.append(box((0, y, 0.74 * height), (0.08, width / count, 0.5 * height), material))
        for side in (-1, 1):
            y = side * 0.42 * width
            parts.append(box((0, y, 0.05), (0.5, 0.3, 0.1), TYRE))
            parts.append(beam((0, y, 0.1), (0, y, 0.6 * height), 0.1, STEEL))
    return Mesh.join(parts).fitted(size)


def traffic_cone(size: Size, rng: np.random.Generator) -> Mesh:
    """Return a cone with a square foot and one or two reflecting sleeves."""
    half = 0.5
    foot = np.array([[-half, -half, 0], [half, -half, 0], [half, half, 0], [-half, half, 0]])
    parts = [loft(foot, foot + (0, 0, 0.05), ORANGE)]
    stripes = 2 if rng.random() < 0.5 else 1
    levels = [0.05, 0.40, 0.60, 1.0] if stripes == 1 else [0.05, 0.30, 0.45, 0.60, 0.75, 1.0]
    for number, (low, high) in enumerate(pairwise(levels)):
        radii = (0.40 * (1 - 0.85 * low), 0.40 * (1 - 0.85 * high))
        material = (ORANGE, WHITE)[number % 2]
        parts.append(cylinder((0, 0, low), (0, 0, high), radii, material, sides=7))
    return Mesh.join(parts).fitted(size)
