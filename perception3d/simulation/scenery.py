"""Things that stand where they are: buildings, trees, hedges, poles, signs, fences."""

from itertools import pairwise

import numpy as np

from perception3d.simulation.mesh import (
    FACADE,
    FOLIAGE,
    GRAIN,
    Material,
    Mesh,
    beam,
    box,
    cylinder,
    ellipsoid,
    loft,
)
from perception3d.simulation.road import Road
from perception3d.simulation.semantics import MANMADE, VEGETATION

_BARK = Material((0.30, 0.22, 0.15), 0.30, GRAIN)
_METAL = Material((0.45, 0.46, 0.48), 0.45)
_WOOD = Material((0.45, 0.33, 0.22), 0.35, GRAIN)
_SIGNS = (
    Material((0.75, 0.08, 0.08), 0.90),
    Material((0.10, 0.25, 0.65), 0.90),
    Material((0.90, 0.80, 0.10), 0.90),
)
_WALLS = (
    (0.70, 0.62, 0.52),
    (0.60, 0.35, 0.28),
    (0.75, 0.75, 0.72),
    (0.55, 0.58, 0.62),
    (0.80, 0.72, 0.55),
)
_ROOFS = (Material((0.45, 0.20, 0.15), 0.35, GRAIN), Material((0.30, 0.30, 0.32), 0.30, GRAIN))


def building(
    road: Road,
    s: tuple[float, float],
    d: tuple[float, float],
    height: float,
    rng: np.random.Generator,
) -> Mesh:
    """Return a house on the plot s, d (m), with a flat or a pitched roof, rooted in the ground."""
    corner_s = np.array([s[0], s[1], s[1], s[0]])
    corner_d = np.array([d[0], d[0], d[1], d[1]])
    x, y = road.plan(corner_s, corner_d)
    ground = road.height(corner_s, corner_d)
    color = _WALLS[rng.integers(len(_WALLS))]
    wall = Material(color, float(rng.uniform(0.25, 0.5)), FACADE)
    top = np.full(4, ground.max() + height)
    foot = np.stack([x, y, ground - 1.0], axis=-1)
    eaves = np.stack([x, y, top], axis=-1)
    roof = _ROOFS[rng.integers(2)]
    parts = [loft(foot, eaves, wall)]
    middle = eaves.mean(axis=0)
    if rng.random() < 0.5:
        ridge = middle + (eaves - middle) * 0.05 + (0, 0, rng.uniform(2, 4))
        over = middle + (eaves - middle) * 1.06
        parts.append(loft(over, ridge, roof))
    else:
        inner = middle + (eaves - middle) * 0.9
        parts.append(loft(inner, inner + (0, 0, 0.8), roof))
    return Mesh.join(parts).labelled(MANMADE)


def tree(rng: np.random.Generator) -> Mesh:
    """Return a broad-leaved tree or a conifer, 4 to 9 m high, standing on z = 0."""
    height = rng.uniform(4.5, 9.0)
    green = rng.uniform(0.7, 1.2)
    leaves = Material(
        (0.16 * green, 0.32 * green, 0.08 * green), float(rng.uniform(0.3, 0.5)), FOLIAGE
    )
    stem = rng.uniform(1.8, 2.6)
    parts = [cylinder((0, 0, -0.3), (0, 0, stem + 0.8), (0.17, 0.12), _BARK, sides=6)]
    if rng.random() < 0.6:
        width = rng.uniform(0.5, 0.75) * (height - stem)
        size = (width, width * rng.uniform(0.85, 1.15), height - stem)
        parts.append(ellipsoid((0, 0, (height + stem) / 2), size, leaves))
        offset = rng.uniform(-0.25, 0.25, 2) * width
        center = (offset[0], offset[1], height - 0.35 * (height - stem))
        parts.append(ellipsoid(center, np.multiply(size, 0.7), leaves, sides=6))
    else:
        levels = np.linspace(stem - 0.6, height, 4)
        for low, high in pairwise(levels.tolist()):
            radius = 0.28 * (height - low)
            top = (0, 0, high + 0.25 * (high - low))
            parts.append(cylinder((0, 0, low), top, (radius, 0.25 * radius), leaves))
    return Mesh.join(parts).labelled(VEGETATION)


def hedge(length: float, rng: np.random.Generator) -> Mesh:
    """Return a clipped hedge along x, `length` m long, standing on z = 0."""
    green = rng.uniform(0.7, 1.1)
    leaves = Material((0.13 * green, 0.30 * green, 0.09 * green), 0.4, FOLIAGE)
    height = rng.uniform(0.9, 1.5)
    return box((0, 0, height / 2 - 0.2), (length, 0.8, height + 0.4), leaves).labelled(VEGETATION)


def fence(length: float) -> Mesh:
    """Return a wooden fence along x, `length` m long, 1.7 m high, standing on z = 0."""
    panel = box((0, 0, 0.85), (length, 0.06, 1.5), _WOOD)
    posts = [
        box((x, 0, 0.65), (0.12, 0.12, 2.1), _WOOD)
        for x in np.linspace(-length / 2, length / 2, max(2, int(length / 3)))
    ]
    return Mesh.join([panel, *posts]).labelled(MANMADE)


def street_lamp() -> Mesh:
    """Return a lamp post 7 m high whose arm points along +x, standing on z = 0."""
    parts = [
        cylinder((0, 0, -0.3), (0, 0, 7.0), (0.11, 0.07), _METAL, sides=6),
        beam((0, 0, 6.9), (1.8, 0, 7.1), 0.1, _METAL),
        box((1.9, 0, 7.05), (0.7, 0.25, 0.12), _METAL),
    ]
    return Mesh.join(parts).labelled(MANMADE)


def road_sign(rng: np.random.Generator) -> Mesh:
    """Return a traffic sign on a pole that faces -x, standing on z = 0."""
    plate = cylinder(
        (-0.06, 0, 2.4), (-0.02, 0, 2.4), (0.38, 0.38), _SIGNS[rng.integers(3)], sides=8
    )
    pole = cylinder((0, 0, -0.3), (0, 0, 2.75), (0.04, 0.04), _METAL, sides=5)
    return Mesh.join([pole, plate]).labelled(MANMADE)
